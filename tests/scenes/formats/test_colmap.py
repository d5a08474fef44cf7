import logging
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

import scenes
from scenes import Cameras
from scenes.formats import colmap
from tests.scenes.captures import SHARED_SCENES, camera_ring, colmap_model, write_capture


def load(path, **options):
    return scenes.load(path, progress=False, **options)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    ("model_folder", "photo_folder"),
    [
        ("sparse/0", "images"),
        ("sparse", "images"),
        ("colmap/sparse/0", "images"),
        ("colmap/sparse/0", "colmap/images"),
        ("gaussian_splat/sparse/0", "gaussian_splat/images"),
        ("sparse/0", "."),
    ],
)
def test_reads_every_layout_binary_and_text(tmp_path, model_folder, photo_folder, text):
    names = write_capture(tmp_path, model_folder=model_folder, photo_folder=photo_folder, text=text)
    scene = load(tmp_path)
    assert scene.names == tuple(names) and scene.kind == "COLMAP"
    assert np.allclose(scene.cameras.viewmats, camera_ring(8), atol=1e-6)
    assert scene.cameras.Ks[3].tolist() == [[60, 0, 32], [0, 61, 24], [0, 0, 1]]
    assert scene.cameras.size == (64, 48)
    cloud = colmap_model(names).points3D
    assert np.allclose(scene.points[4], cloud[5].xyz)
    assert np.allclose(scene.point_colors[4] * 255, cloud[5].color)
    stored = Image.open(tmp_path / photo_folder / names[2])
    assert np.array_equal(scene.images[2], np.array(stored))


def test_views_are_sorted_by_name(tmp_path):
    names = write_capture(tmp_path, ["b.png", "d.png", "a.png", "c.png"])
    scene = load(tmp_path)
    assert scene.names == tuple(sorted(names))
    assert np.allclose(scene.cameras.viewmats, camera_ring(4)[[2, 0, 3, 1]], atol=1e-6)
    assert np.array_equal(scene.images[0], np.array(Image.open(tmp_path / "images" / "a.png")))


def test_several_cameras_of_different_sizes(tmp_path):
    write_capture(
        tmp_path,
        cameras=[
            ("SIMPLE_PINHOLE", 64, 48, [60, 32, 24]),
            ("PINHOLE", 40, 60, [50, 51, 20, 30]),
        ],
        camera_of=[0, 1, 0, 1, 1, 0],
        names=[f"{'left' if i % 2 else 'right'}/{i}.png" for i in range(6)],
    )
    scene = load(tmp_path)
    assert scene.names[0] == "left/1.png"
    sizes = sorted(map(tuple, scene.cameras.sizes.tolist()))
    assert sizes == [(40, 60)] * 3 + [(64, 48)] * 3
    for image, (width, height), K in zip(
        scene.images, scene.cameras.sizes.tolist(), scene.cameras.Ks, strict=True
    ):
        assert image.shape == (height, width, 3)
        assert K[0, 2] == width / 2


def test_an_unknown_camera_model_is_named(tmp_path):
    write_capture(tmp_path, text=True)
    file = tmp_path / "sparse/0/cameras.txt"
    file.write_text(file.read_text().replace("PINHOLE", "KALEIDOSCOPE"))
    with pytest.raises(ValueError, match=r"cameras\.txt, line 4: 'KALEIDOSCOPE' is no"):
        load(tmp_path)


def test_full_opencv_without_distortion_is_a_pinhole(tmp_path):
    params = [60, 61, 32, 24, *[0.0] * 8]
    names = write_capture(tmp_path, cameras=[("FULL_OPENCV", 64, 48, params)])
    scene = load(tmp_path)
    assert scene.cameras.Ks[0].tolist() == [[60, 0, 32], [0, 61, 24], [0, 0, 1]]
    assert np.array_equal(scene.images[0], np.array(Image.open(tmp_path / "images" / names[0])))


@pytest.mark.parametrize("text", [False, True])
def test_names_with_spaces(tmp_path, text):
    names = [f"my photo {i} (copy).png" for i in range(5)]
    write_capture(tmp_path, names, text=text)
    scene = load(tmp_path)
    assert scene.names == tuple(names) and scene.notes == ()
    assert np.allclose(scene.cameras.viewmats, camera_ring(5), atol=1e-6)


OBSERVATIONS = "12 30 -1 1.5 2.5 7 12 30 3 4 5 -1"  # as long as a pose with a name of three words


@pytest.mark.parametrize("between", ["\n", "\n\n", f"\n{OBSERVATIONS}\n"])
def test_text_with_empty_and_without_lines_of_observations(tmp_path, between):
    write_capture(tmp_path, [f"{i} of 3.png" for i in range(4)], text=True)
    file = tmp_path / "sparse/0/images.txt"
    poses = [line for line in file.read_text().splitlines() if line.endswith(".png")]
    file.write_text("# made by hand\n" + between.join(poses) + "\n")
    points = tmp_path / "sparse/0/points3D.txt"  # tracks of observations that are not there
    points.write_text("9 0.5 0 0 255 0 0 0.1 1 0 2 1\n3 0 0.5 0 0 255 0 0.1 1 1 2 0\n")
    scene = load(tmp_path)
    assert np.allclose(scene.cameras.viewmats, camera_ring(4), atol=1e-6)
    assert scene.points.tolist() == [[0, 0.5, 0], [0.5, 0, 0]]  # in the order of their ids
    assert scene.point_colors.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_a_line_that_is_neither_a_pose_nor_observations_is_named(tmp_path):
    write_capture(tmp_path, text=True)
    file = tmp_path / "sparse/0/images.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:5], "1 2 3 4", *lines[6:]]))
    with pytest.raises(ValueError, match=r"images\.txt, line 6: a view needs 10 fields"):
        load(tmp_path)


def test_quaternions_need_not_be_normalised(tmp_path):
    write_capture(tmp_path, text=True)
    file = tmp_path / "sparse/0/images.txt"
    lines = file.read_text().splitlines()
    for i, line in enumerate(lines):
        if line.endswith(".png"):
            number, *q = line.split()[:5]
            q = [str(1.3 * float(value)) for value in q]
            lines[i] = " ".join([number, *q, *line.split()[5:]])
    file.write_text("\n".join(lines) + "\n")
    assert np.allclose(load(tmp_path).cameras.viewmats, camera_ring(8), atol=1e-6)


def test_a_model_without_points_file_has_no_points_and_says_so(capture, caplog):
    (capture / "sparse/0/points3D.bin").unlink()
    with caplog.at_level(logging.INFO):
        scene = load(capture)
    assert scene.points.shape == (0, 3) and "no points3D file" in scene.notes[0]
    warnings = [entry for entry in caplog.records if entry.levelno == logging.WARNING]
    assert [entry.getMessage() for entry in warnings] == list(scene.notes)
    assert any("every 8th view is held out" in entry.getMessage() for entry in caplog.records)


def test_rigs_and_frames_files_are_not_needed(capture):
    before = load(capture)
    for part in ("rigs", "frames"):
        (capture / f"sparse/0/{part}.bin").write_bytes(b"damaged")
    assert torch.equal(load(capture).cameras.viewmats, before.cameras.viewmats)


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("text", [False, True])
def test_a_cut_file_is_named(tmp_path, part, text):
    write_capture(tmp_path, text=text)
    file = tmp_path / "sparse/0" / f"{part}{'.txt' if text else '.bin'}"
    whole = file.read_bytes()
    if text:  # cut in the middle of the last record
        last = whole.rstrip().rfind(b"\n") if part != "images" else whole.rfind(b"007.png") - 20
        whole = whole[: last + 9]
    file.write_bytes(whole[:-3])
    with pytest.raises(ValueError, match=file.name):
        load(tmp_path)


def test_an_absurd_count_does_not_allocate(capture):
    file = capture / "sparse/0/points3D.bin"
    data = bytearray(file.read_bytes())
    data[:8] = (2**62).to_bytes(8, "little")
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"points3D\.bin is cut off or damaged"):
        load(capture)


def test_a_pose_that_is_not_finite_is_named(tmp_path):
    write_capture(tmp_path, text=True)
    file = tmp_path / "sparse/0/images.txt"
    lines = file.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if line.endswith("003.png"))
    fields = lines[at].split()
    lines[at] = " ".join([*fields[:5], "nan", *fields[6:]])
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"images\.txt: the pose of 003\.png"):
        load(tmp_path)


def test_photos_without_a_pose_are_named(capture):
    for name in ("008.png", "new/009.png"):
        (capture / "images" / name).parent.mkdir(exist_ok=True)
        shutil.copy(capture / "images/000.png", capture / "images" / name)
    (note,) = scenes.load(capture, progress=False).notes
    assert "2 photos in" in note and note.endswith("will not be used: 008.png, new/009.png")


@pytest.mark.parametrize("folder", ["C:\\shoot\\images\\", "/home/else/images/", "../images/"])
def test_names_that_are_paths_of_another_machine(tmp_path, folder):
    names = [f"{i}.png" for i in range(4)]
    write_capture(tmp_path, names)
    colmap_model([folder + name.upper() for name in names]).write_text(tmp_path / "sparse/0")
    for file in (tmp_path / "sparse/0").glob("*.bin"):
        file.unlink()
    scene = scenes.load(tmp_path, data_factor=2, progress=False)
    assert scene.names == tuple(names) and scene.notes == ()


def test_views_with_the_same_pose_are_named(capture):
    model = pycolmap.Reconstruction(capture / "sparse/0")
    views = {image.name: image for image in model.images.values()}
    views["001.png"].frame.rig_from_world = views["000.png"].cam_from_world()
    model.write_binary(capture / "sparse/0")
    (note,) = scenes.load(capture, progress=False).notes
    assert note == "1 view has exactly the pose of another one: 001.png"


def test_missing_photos_are_skipped_in_one_note(capture):
    for name in ("001.png", "005.png"):
        (capture / "images" / name).unlink()
    scene = load(capture)
    assert len(scene) == 6 and len(scene.notes) == 1
    assert scene.notes[0].startswith("skipped 2 views without a photo in")
    assert np.allclose(scene.cameras.viewmats, camera_ring(8)[[0, 2, 3, 4, 6, 7]], atol=1e-6)


def test_no_photos_at_all_names_the_folder(capture):
    shutil.rmtree(capture / "images")
    with pytest.raises(FileNotFoundError, match="none of the 8 photos"):
        load(capture)


def test_fewer_than_three_views_is_refused(tmp_path):
    write_capture(tmp_path, ["a.png", "b.png"])
    with pytest.raises(ValueError, match="only 2 views with a pose; at least 3"):
        load(tmp_path)


def test_write_then_load_is_exact(tmp_path):
    scene_folder = tmp_path / "written"
    write_capture(scene_folder)  # for the photos; its model is replaced
    generator = torch.Generator().manual_seed(0)
    Ks = torch.tensor([[60.25, 0, 31.7], [0, 61.125, 24.2], [0, 0, 1]]).repeat(8, 1, 1)
    Ks[5:] *= torch.tensor([[1.1], [1.2], [1]])
    cameras = Cameras(
        torch.from_numpy(camera_ring(8, radius=3.3)).float(), Ks, torch.tensor([[64, 48]] * 8)
    )
    points = torch.randn(50, 3, generator=generator)
    colors = torch.randint(0, 256, (50, 3), generator=generator) / 255
    names = [f"{i:03d}.png" for i in range(8)]
    model = colmap.write(scene_folder, cameras, names, points, colors)
    assert model == scene_folder / "sparse/0"
    assert not list((scene_folder / "sparse").glob(".*"))
    assert len(pycolmap.Reconstruction(model).cameras) == 2

    scene = load(scene_folder)
    assert torch.allclose(scene.cameras.viewmats, cameras.viewmats, atol=1e-6)
    assert torch.equal(scene.cameras.Ks, cameras.Ks)
    assert torch.equal(scene.points, points)
    assert torch.allclose(scene.point_colors, colors, atol=1e-6)


def test_a_failed_write_keeps_the_older_model(capture, monkeypatch):
    before = {file.name: file.read_bytes() for file in (capture / "sparse/0").iterdir()}
    scene = load(capture)

    class Failing:
        def write_binary(self, folder):
            (folder / "cameras.bin").write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        colmap.write_model(Failing(), capture)
    assert {file.name: file.read_bytes() for file in (capture / "sparse/0").iterdir()} == before
    assert [folder.name for folder in (capture / "sparse").iterdir()] == ["0"]
    assert len(scene) == 8


def test_the_older_model_outlives_a_failure_to_replace_it(capture, monkeypatch):
    before = {file.name: file.read_bytes() for file in (capture / "sparse/0").iterdir()}
    rename = Path.rename

    def fail_once(self, target):
        if Path(target).name == "0" and not self.name.endswith("-old"):
            assert {file.name for file in self.iterdir()} >= {"cameras.bin", "images.bin"}
            raise OSError("gone")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="gone"):
        colmap.write_model(colmap_model(["a.png"]), capture)
    assert {file.name: file.read_bytes() for file in (capture / "sparse/0").iterdir()} == before
    assert [folder.name for folder in (capture / "sparse").iterdir()] == ["0"]


def test_an_absurd_camera_size_is_told_shortly(tmp_path):
    write_capture(tmp_path, text=True)
    file = tmp_path / "sparse/0/cameras.txt"
    file.write_text(file.read_text().replace("PINHOLE 64 48", "PINHOLE 9000000000000000 48"))
    with pytest.raises(ValueError, match=r"has the image size 9e\+15x48"):
        load(tmp_path)


@pytest.mark.skipif(not SHARED_SCENES.is_dir(), reason="no shared scenes beside the project")
def test_points_of_a_real_capture_project_onto_their_photos():
    scene = load(SHARED_SCENES / "fountain")
    model = pycolmap.Reconstruction(SHARED_SCENES / "fountain/sparse/0")
    assert len(scene) == 11 and scene.cameras.size == (960, 640)
    assert len(scene.points) == len(model.points3D) == 1981
    image = next(image for image in model.images.values() if image.name == scene.names[0])
    pairs = [
        (point.xy, model.points3D[point.point3D_id].xyz)
        for point in image.points2D
        if point.has_point3D()
    ]
    seen, xyz = (torch.tensor(np.array(part)).float() for part in zip(*pairs, strict=True))
    at_camera = xyz @ scene.cameras.viewmats[0, :3, :3].T + scene.cameras.viewmats[0, :3, 3]
    at_photo = at_camera @ scene.cameras.Ks[0].T
    errors = (at_photo[:, :2] / at_photo[:, 2:] - seen).norm(dim=1)
    assert errors.median() < 1


def test_the_points_of_each_view_are_those_of_its_track(tmp_path):
    """Also in text, and where a view, whose photo is missing, is skipped."""
    write_capture(tmp_path)
    model = pycolmap.Reconstruction(tmp_path / "sparse/0")
    ids = sorted(model.images, key=lambda number: model.images[number].name)
    points = sorted(model.points3D)
    wanted = {}
    for rank, number in enumerate(ids):
        image = model.images[number]
        seen = points[rank :: len(ids)][:5]
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D([1.0, 2.0]) for _ in seen])
        for index, point in enumerate(seen):
            model.add_observation(point, pycolmap.TrackElement(number, index))
        wanted[image.name] = [points.index(point) for point in seen]
    gone = model.images[ids[2]].name
    (tmp_path / "images" / gone).unlink()
    for write in (model.write_binary, model.write_text):
        for file in (tmp_path / "sparse/0").iterdir():
            file.unlink()
        write(tmp_path / "sparse/0")
        scene = scenes.load(tmp_path, progress=False)
        assert gone not in scene.names
        for name, seen in zip(scene.names, scene.seen, strict=True):
            assert seen.tolist() == wanted[name]
