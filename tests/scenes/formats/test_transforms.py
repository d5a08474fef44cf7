import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import scenes
from scenes import Cameras
from scenes.formats import transforms
from tests.scenes.captures import SHARED_SCENES, camera_ring, photo

TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def load(path, **options):
    return scenes.load(path, progress=False, **options)


def write(root, shared=None, frames=None, n=5, size=(64, 48), edit=lambda content: None):
    """n photos on a ring and their transforms.json; `edit` may change it before it is written."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(photo(*size, i)).save(root / "images" / f"{i}.png")
    poses = np.linalg.inv(camera_ring(n)) @ TO_OPENGL
    content = {"w": 64, "h": 48, **(shared or {"fl_x": 60.0, "fl_y": 61.0, "cx": 31, "cy": 25})}
    content["frames"] = [
        {
            "file_path": f"images/{i}.png",
            "transform_matrix": poses[i].tolist(),
            **(frames[i] if frames else {}),
        }
        for i in range(n)
    ]
    edit(content)
    (root / "transforms.json").write_text(json.dumps(content))
    return root


def test_opengl_poses_become_opencv_viewmats(tmp_path):
    scene = load(write(tmp_path))
    assert scene.kind == "transforms.json" and scene.names[0] == "0.png"
    assert np.allclose(scene.cameras.viewmats, camera_ring(5), atol=1e-6)
    assert scene.cameras.Ks[0].tolist() == [[60, 0, 31], [0, 61, 25], [0, 0, 1]]
    assert scene.points.shape == (0, 3) and scene.notes == ()


@pytest.mark.parametrize("style", ["./images/{}.png", "images/{}", "./images/{}", "images\\{}.png"])
def test_styles_of_file_path(tmp_path, style):
    def edit(content):
        for i, frame in enumerate(content["frames"]):
            frame["file_path"] = style.format(i)

    assert load(write(tmp_path, edit=edit)).names == ("0.png", "1.png", "2.png", "3.png", "4.png")


def test_fields_of_view_and_their_priority(tmp_path):
    angle = 2 * math.atan(32 / 50)
    scene = load(write(tmp_path / "shared", {"camera_angle_x": angle}))
    assert torch.allclose(scene.cameras.Ks[0, [0, 1], [0, 1]], torch.tensor([50.0, 50.0]))
    assert scene.cameras.Ks[0, :2, 2].tolist() == [32, 24]
    # fl_x outranks a field of view that disagrees; a frame's own value outranks the shared one
    shared = {"camera_angle_x": angle, "fl_x": 70, "fl_y": 71}
    frames = [{}, {"fl_x": 80, "fl_y": 81}, {"camera_angle_x": angle}, {"cx": 30}, {}]
    scene = load(write(tmp_path / "own", shared, frames))
    assert torch.allclose(scene.cameras.Ks[:, 0, 0], torch.tensor([70.0, 80, 50, 70, 70]))
    assert torch.allclose(scene.cameras.Ks[:, 1, 1], torch.tensor([71.0, 81, 50, 71, 71]))
    assert scene.cameras.Ks[:, 0, 2].tolist() == [32, 32, 32, 30, 32]


def test_photos_of_another_size_scale_the_intrinsics(tmp_path):
    scene = load(write(tmp_path, size=(32, 24)))
    assert scene.cameras.size == (32, 24)
    assert scene.cameras.Ks[0].tolist() == [[30, 0, 15.5], [0, 30.5, 12.5], [0, 0, 1]]


def test_photos_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"0\.png is 48x64, but its camera says 64x48"):
        load(write(tmp_path, size=(48, 64)))


def test_missing_photos_are_counted_in_one_note(tmp_path):
    write(tmp_path, n=7)
    for i in (2, 4):
        (tmp_path / f"images/{i}.png").unlink()
    scene = load(tmp_path)
    assert scene.names == ("0.png", "1.png", "3.png", "5.png", "6.png")
    assert len(scene.notes) == 1 and "names 2 photos not to be found" in scene.notes[0]


def test_points_of_the_ply_file(tmp_path):
    points = np.random.default_rng(0).normal(0, 0.3, (30, 3))
    write_ply(tmp_path / "points.ply", points)
    scene = load(write(tmp_path, edit=lambda c: c.update(ply_file_path="points.ply")))
    assert np.allclose(scene.points, points, atol=1e-6)
    assert np.allclose(scene.point_colors[0], np.array([255, 128, 0]) / 255)


@pytest.mark.parametrize("in_frame", [True, False])
def test_points_meet_the_poses_with_or_without_the_applied_transform(tmp_path, in_frame):
    applied = np.array([[0.0, 1, 0, 5], [1, 0, 0, 0], [0, 0, -1, 0]])
    points = np.random.default_rng(0).normal(0, 0.3, (30, 3))  # where the ring looks
    before = (points - applied[:, 3]) @ applied[:, :3]
    write_ply(tmp_path / "points.ply", points if in_frame else before)

    def edit(content):
        content.update(ply_file_path="points.ply", applied_transform=applied.tolist())

    assert np.allclose(load(write(tmp_path, edit=edit)).points, points, atol=1e-5)


def write_ply(file, points):
    lines = [f"{x:.9g} {y:.9g} {z:.9g} 255 128 0" for x, y, z in points]
    head = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += [f"property uchar {name}" for name in ("red", "green", "blue")]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*head, "end_header", *lines]) + "\n")


def test_write_then_load(tmp_path):
    write(tmp_path)
    Ks = torch.tensor([[60.25, 0, 31.7], [0, 61.125, 24.2], [0, 0, 1]]).repeat(5, 1, 1)
    Ks[3, 0, 0] = 77
    viewmats = torch.from_numpy(camera_ring(5, radius=2.7)).float()
    cameras = Cameras(viewmats, Ks, torch.tensor([[64, 48]] * 5))
    file = transforms.write(tmp_path, cameras, [f"{i}.png" for i in range(5)])
    assert file == tmp_path / "transforms.json"
    scene = load(tmp_path)
    assert torch.allclose(scene.cameras.viewmats, viewmats, atol=1e-6)
    assert torch.equal(scene.cameras.Ks, Ks)


def bad_pose(value):
    def edit(content):
        content["frames"][1]["transform_matrix"] = value

    return edit


NAN_POSE = [[1, 0, 0, float("nan")], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (lambda c: c.pop("fl_x") and c.pop("fl_y"), "no intrinsics"),
        (lambda c: c.update(fl_x="wide"), '"fl_x" is wide, not a number'),
        (lambda c: c.update(fl_x=0), "focal length"),
        (lambda c: c.update(camera_model="VR180_L"), "camera_model VR180_L"),
        (lambda c: c.update(test_filenames="1.png"), '"test_filenames" is not a list of names'),
        (lambda c: c.pop("frames"), 'has no "frames"'),
        (lambda c: c["frames"].__setitem__(0, 7), 'frame 0 has no "file_path"'),
        (bad_pose(NAN_POSE), r"pose of 1\.png has values that are not finite"),
        (bad_pose((1e40 * np.eye(4)).tolist()), r"pose of 1\.png has values .* beyond 1e\+12"),
        (lambda c: c.update(w=1e300), r"has the image size 1e\+300x48"),
        (bad_pose([[1, 0, 0], [0, 1, 0], [0, 0, 1]]), r"pose of 1\.png has the shape"),
        (bad_pose("here"), r"pose of 1\.png is not numbers"),
        (bad_pose(None), r"pose of 1\.png"),
        (bad_pose(np.diag([2.0, 2, 2, 1]).tolist()), r"pose of 1\.png is not rigid"),
        (bad_pose(np.diag([1.0, 1, -1, 1]).tolist()), r"pose of 1\.png is mirrored"),
    ],
)
def test_bad_files_get_a_sentence(tmp_path, edit, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        load(write(tmp_path, edit=edit))
    assert "transforms.json" in str(error.value) and "\n" not in str(error.value)


def test_text_that_is_not_json(tmp_path):
    write(tmp_path)
    (tmp_path / "transforms.json").write_text('{"frames": [')
    with pytest.raises(ValueError, match=r"transforms\.json is not valid JSON"):
        load(tmp_path)


@pytest.mark.skipif(not SHARED_SCENES.is_dir(), reason="no shared scenes beside the project")
def test_fox_has_50_photos_and_17_frames_without_one():
    scene = load(SHARED_SCENES / "fox")
    assert len(scene) == 50 and scene.cameras.size == (540, 960)
    assert len(scene.notes) == 2 and "17 photos" in scene.notes[0] and "1080" in scene.notes[1]
    # the file states 1080x1920 and fl_x 1375.52 (its camera_angle_x disagrees)
    assert abs(scene.cameras.Ks[0, 0, 0].item() / (1375.52 / 2) - 1) < 0.05
    # every camera looks at the fox: the axes pass near one point in front of all
    origins = scene.cameras.positions.double()
    looks = scene.cameras.viewmats[:, 2, :3].double()
    across = torch.eye(3).double() - looks[:, :, None] * looks[:, None]
    target = torch.linalg.solve(across.sum(0), (across @ origins[:, :, None]).sum(0))[:, 0]
    assert ((target - origins) * looks).sum(1).min() > 0


def test_a_file_whose_photos_are_all_missing(tmp_path):
    write(tmp_path)
    for photo_file in (tmp_path / "images").iterdir():
        photo_file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"none of the 5 photos that .*transforms\.json names"
    ):
        load(tmp_path)


def test_k4_without_a_fisheye_belongs_to_the_eighth_power(tmp_path):
    terms = {"k1": 0.1, "k2": 0.02, "k3": 0.03, "k4": 0.04, "p1": 0.001, "p2": 0.002}
    write(tmp_path, edit=lambda c: c.update(terms))
    lens = transforms.read(tmp_path / "transforms.json").lenses[0]
    assert (lens.model, lens.distortion) == ("BROWN", (0.1, 0.02, 0.001, 0.002, 0.03, 0.04))
    assert load(tmp_path).cameras.size == (64, 48)


@pytest.mark.parametrize(
    ("lists", "train", "test"),
    [
        ({"train": [0, 1, 2], "test": [3], "val": [4]}, (0, 1, 2), (3,)),
        ({"train": [0, 1, 2], "val": [4]}, (0, 1, 2), (4,)),
        ({"train": [0, 1], "test": [], "val": [4]}, (0, 1), (4,)),
        ({"train": [0, 1]}, (0, 1), (2, 3, 4)),
        ({"test": [1]}, (0, 2, 3, 4), (1,)),
    ],
)
def test_a_split_given_by_lists_of_filenames_is_used(tmp_path, lists, train, test):
    def edit(content):
        for part, views in lists.items():
            content[f"{part}_filenames"] = [f"./images/{i}.png" for i in views]

    write(tmp_path, edit=edit)
    split = load(tmp_path).split
    assert (split.rule, split.train, split.test) == ("capture", train, test)
    assert load(tmp_path, split="capture").split == split
    assert load(tmp_path, test_every=2).split.rule == "difix"


def test_lists_of_filenames_that_make_no_split_are_told(tmp_path):
    def edit(content):
        content["train_filenames"] = [f"images/{i}.png" for i in range(5)]
        content["test_filenames"] = ["images/9.png"]

    scene = load(write(tmp_path, edit=edit))
    assert scene.split.rule == "gsplat" and "test_filenames in transforms.json" in scene.notes[0]
    assert "leave nothing to train or test on" in scene.notes[1]


def test_smaller_photos_alone_are_found_at_their_factor(tmp_path):
    write(tmp_path, size=(20, 16))
    (tmp_path / "images").rename(tmp_path / "images_3")
    scene = load(tmp_path, data_factor=3)
    assert scene.cameras.size == (20, 16) and scene.cameras.Ks[0, 0, 0] == 18.75
    with pytest.raises(FileNotFoundError, match="use --data_factor 3"):
        load(tmp_path)
