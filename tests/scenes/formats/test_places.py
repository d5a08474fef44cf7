# Poses that lie where other programs put them are seen, and the right ones are read.
import json
import logging
import math
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import scenes
from scenes.formats import colmap
from scenes.formats.registry import find_captures
from tests.scenes.captures import camera_ring, colmap_model, write_capture
from tests.scenes.formats import exports
from tests.scenes.formats.test_transforms import write as write_transforms
from tests.scenes.known import measure_color_error


def load(path, **options):
    return scenes.load(path, progress=False, **options)


@pytest.mark.parametrize(
    ("model", "photos"),
    [
        (".", "images"),
        (".", "."),
        ("0", "images"),
        ("dense/0/sparse", "dense/0/images"),
        ("dense/sparse", "dense/images"),
        ("dense", "dense/images"),
        ("undistorted/sparse", "undistorted/images"),
        ("distorted/sparse/0", "input"),
        ("colmap", "images"),
        ("colmap", "colmap/images"),
        ("colmap/0", "images"),
        ("colmap/dense/0/sparse", "colmap/dense/0/images"),
        ("colmap_text", "images"),
        ("sfm", "images"),
        ("sparse/0", "input"),
        ("sparse/0", "frames"),
    ],
)
def test_a_known_capture_is_read_from_the_places_of_other_programs(tmp_path, known, model, photos):
    shutil.copytree(known.path / "images", tmp_path / photos, dirs_exist_ok=True)
    shutil.copytree(known.path / "sparse/0", tmp_path / model, dirs_exist_ok=True)
    scene = load(tmp_path, data_factor=1)
    assert len(scene) == 24 and scene.notes == ()
    assert find_captures(tmp_path) == [tmp_path]
    assert measure_color_error(scene) == pytest.approx(measure_color_error(known), abs=1e-4)


def test_the_folder_of_the_model_itself_may_be_named(capture):
    for folder in (capture / "sparse/0", capture / "sparse"):
        assert np.allclose(load(folder).cameras.viewmats, camera_ring(8), atol=1e-6)


def test_undistorted_photos_go_before_the_distorted(tmp_path):
    # The layout of Inria's convert.py.
    write_capture(tmp_path)
    camera = [("OPENCV", 64, 48, [50, 50, 32, 24, 0.1, 0, 0, 0])]
    write_capture(tmp_path, model_folder="distorted/sparse/0", photo_folder="input", cameras=camera)
    assert load(tmp_path).cameras.Ks[0, 0, 0] == 60
    shutil.rmtree(tmp_path / "sparse")
    # `images` of the other name-alike photos must not be taken for the distorted ones
    Image.new("RGB", (64, 48)).save(tmp_path / "images/000.png")
    assert load(tmp_path).images[0].max() > 0


def write_models(root, sizes):
    """Photos, and models with the first n of 8 views each, in sub-folders of sparse by name."""
    names = write_capture(root)
    shutil.rmtree(root / "sparse")
    for folder, n in sizes.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        colmap_model(names[:n]).write_text(root / folder)


@pytest.mark.parametrize(
    ("sizes", "views", "note"),
    [
        (
            {"sparse/0": 4, "sparse/1": 8, "sparse/2": 3},
            8,
            "sparse/1 (8 photos) is read, not sparse/0 (4 photos)",
        ),
        ({"sparse/0": 8, "sparse/1": 8}, 8, "sparse/0 (8 photos) is read, not sparse/1 (8"),
        ({"sparse/1": 6}, 6, None),
        ({"sparse/0": 3, "sparse": 5}, 5, "sparse (5 photos) is read, not sparse/0 (3 photos)"),
        ({"sparse/aligned": 7, "colmap/sparse/0": 8}, 8, "is read, not sparse/aligned (7 photos)"),
    ],
)
def test_the_model_with_the_most_images_is_read_and_the_others_are_named(
    tmp_path, sizes, views, note
):
    write_models(tmp_path, sizes)
    scene = load(tmp_path)
    assert len(scene) == views
    notes = [text for text in scene.notes if "no pose" not in text]
    assert [note in text for text in notes] == ([True] if note else [])


def test_a_damaged_count_does_not_make_a_model_the_largest(tmp_path):
    write_capture(tmp_path)
    shutil.copytree(tmp_path / "sparse/0", tmp_path / "sparse/1")
    file = tmp_path / "sparse/1/images.bin"
    file.write_bytes((2**60).to_bytes(8, "little") + file.read_bytes()[8:])
    scene = load(tmp_path)
    assert len(scene) == 8 and "not sparse/1 (0 photos)" in scene.notes[0]


def own_poses(root, n=4):
    """Poses of the first n photos as structure from motion of this project leaves them."""
    names = [f"{i}.png" for i in range(n)]
    colmap.write_model(colmap_model(names), root, own={"notes": ["posed 4 of 5 photos"]})


def test_own_poses_never_outrank_those_of_the_user(tmp_path):
    write_transforms(tmp_path, n=5)
    (tmp_path / "transforms.json").rename(tmp_path / "later.json")
    own_poses(tmp_path)
    scene = load(tmp_path)
    assert scene.kind == "COLMAP" and len(scene) == 4
    assert any("posed 4 of 5 photos" in note for note in scene.notes)
    (tmp_path / "later.json").rename(tmp_path / "transforms.json")
    scene = load(tmp_path)
    assert scene.kind == "transforms.json" and len(scene) == 5
    assert len(scene.notes) == 1 and "not those of structure from motion" in scene.notes[0]
    (tmp_path / "transforms.json").unlink()
    other = tmp_path / "colmap/sparse/0"
    other.mkdir(parents=True)
    colmap_model([f"{i}.png" for i in range(3)]).write_text(other)
    assert len(load(tmp_path)) == 3


def test_poses_copied_over_own_ones_are_the_users(tmp_path):
    write_transforms(tmp_path, n=5)
    own_poses(tmp_path)
    model = colmap_model([f"{i}.png" for i in range(5)])
    model.write_binary(tmp_path / "sparse/0")
    scene = load(tmp_path)
    assert scene.kind == "COLMAP" and len(scene) == 5


def test_text_beside_own_poses_is_the_users(tmp_path):
    write_transforms(tmp_path, n=5)
    own_poses(tmp_path)
    colmap_model([f"{i}.png" for i in range(5)]).write_text(tmp_path / "sparse/0")
    scene = load(tmp_path)
    assert scene.kind == "COLMAP" and len(scene) == 5
    assert "sparse/0/images.txt (5 photos) is read, not images.bin (4 photos)" in scene.notes[0]


def test_poses_of_several_formats_are_named(tmp_path):
    write_transforms(tmp_path, n=5)
    names = [f"{i}.png" for i in range(3)]
    write_capture(tmp_path, names, model_folder="colmap/sparse/0")
    scene = load(tmp_path)
    assert scene.kind == "COLMAP" and len(scene) == 3
    assert "colmap/sparse/0 (3 views), not those of transforms.json (5 views)" in scene.notes[0]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("place", ["images/transforms.json", "data/transforms.json", "a/b/0"])
def test_poses_too_deep_are_refused_with_the_way_to_read_them(tmp_path, place, own):
    write_transforms(tmp_path, n=5)
    file = tmp_path / "transforms.json"
    if own:
        own_poses(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True, parents=True)
    if place.endswith("json"):
        file.rename(tmp_path / place)
    else:
        file.unlink()
        (tmp_path / place).mkdir()
        colmap_model([f"{i}.png" for i in range(5)]).write_text(tmp_path / place)
    with pytest.raises(ValueError, match=f"has poses in {place}.*give .* --image_folder") as error:
        load(tmp_path)
    folder, photos = re.search(
        "give (.*) with --image_folder (.*) to read", str(error.value)
    ).groups()
    assert len(load(folder, image_folder=photos)) == 5


@pytest.mark.parametrize("name", ["a.csv", "Bundle.OUT", "metadata.json", "cameras.json", "a.xmp"])
def test_files_from_which_no_poses_are_read_are_named(tmp_path, name):
    write_transforms(tmp_path, n=4)
    (tmp_path / "transforms.json").unlink()
    own_poses(tmp_path)
    (tmp_path / name).write_text("?")
    (tmp_path / "b.csv").mkdir()  # a folder is no file
    notes = load(tmp_path).notes
    assert len(notes) == 2 and "no poses are read from" in notes[1] and f"({name})" in notes[1]


def test_programs_folders_and_names_without_case(tmp_path, known):
    for number, (kind, file, place) in enumerate(
        [
            ("AliceVision", "cameras.sfm", "MeshroomCache/StructureFromMotion/ab12/cameras.sfm"),
            ("OpenMVG", "sfm_data.json", "reconstruction_sequential/sfm_data.json"),
            ("Metashape", "cameras.xml", "Cameras.XML"),
            ("RealityCapture", "export.csv", "EXPORT.CSV"),
        ]
    ):
        root = tmp_path / str(number)
        exports.WRITERS[kind](root, known)
        (root / place).parent.mkdir(exist_ok=True, parents=True)
        (root / file).rename(root / place)
        assert load(root).kind == kind


def write_synthetic(root, known, parts, photos=""):
    """The known capture as NeRF's synthetic scenes are: files and folders by part, no suffixes."""
    width, focal = known.cameras.sizes[0, 0].item(), known.cameras.Ks[0, 0, 0].item()
    angle = 2 * math.atan(width / (2 * focal))
    poses = np.linalg.inv(known.cameras.viewmats.double().numpy()) @ np.diag([1.0, -1, -1, 1])
    for part, views in parts.items():
        frames = []
        for number, i in enumerate(views):
            file = root / photos / part / f"r_{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(known.images[i]).convert("RGBA").save(file)
            frames.append(
                {
                    "file_path": f"./{part}/r_{number}",
                    "rotation": 0.01,
                    "transform_matrix": poses[i].tolist(),
                }
            )
        content = {"camera_angle_x": angle, "frames": frames}
        (root / f"transforms_{part}.json").write_text(json.dumps(content))


def test_synthetic_scenes_of_nerf(tmp_path, known, caplog):
    parts = {"train": range(0, 14), "test": range(14, 20), "val": range(20, 24)}
    write_synthetic(tmp_path, known, parts)
    Image.new("RGBA", (200, 150)).save(tmp_path / "test/r_0_depth_0001.png")
    (tmp_path / "images").mkdir()  # beside an empty folder of that name
    with caplog.at_level(logging.INFO):
        scene = load(tmp_path)
    assert scene.kind == "NeRF-synthetic" and len(scene) == 20
    assert [scene.names[i] for i in scene.split.test] == [f"test/r_{i}.png" for i in range(6)]
    assert scene.split.rule == "capture" and len(scene.split.train) == 14
    assert "capture: the capture states which views are held out; 14 train" in caplog.text
    assert scene.notes == (
        "transforms_val.json is not read: the views of transforms_test.json are held out",
    )
    error = measure_color_error(scene, known.points, known.point_colors)
    assert error == pytest.approx(measure_color_error(known), abs=0.004)
    assert load(tmp_path, test_every=4).split.rule == "difix"
    assert load(tmp_path, split="all").split.test == ()
    assert find_captures(tmp_path) == [tmp_path]


@pytest.mark.parametrize("parts", [{"train": range(20), "val": range(20, 24)}, {"val": range(24)}])
def test_synthetic_scenes_of_which_files_are_missing(tmp_path, known, parts):
    write_synthetic(tmp_path, known, parts)
    scene = load(tmp_path)
    assert len(scene) == 24
    assert scene.split.rule == ("capture" if "train" in parts else "gsplat")
    assert len(scene.split.test) == (4 if "train" in parts else 3)


def test_synthetic_photos_moved_to_images(tmp_path, known):
    write_synthetic(tmp_path, known, {"train": range(18), "test": range(18, 24)}, photos="images")
    assert load(tmp_path).names[0] == "test/r_0.png"
    shutil.rmtree(tmp_path)
    write_synthetic(tmp_path, known, {"train": range(24)})
    (tmp_path / "train").rename(tmp_path / "images")
    scene = load(tmp_path)
    assert scene.names[0] == "r_0.png" and scene.split.rule == "gsplat"
    error = measure_color_error(scene, known.points, known.point_colors)
    assert error == pytest.approx(measure_color_error(known), abs=0.004)


def test_a_test_list_beside_a_model_is_the_split(capture):
    (capture / "sparse/0/test.txt").write_text("002.png\n\n005.png\n")
    scene = load(capture)
    assert scene.split.rule == "capture" and scene.split.test == (2, 5)
    (capture / "sparse/0/test.txt").write_text("elsewhere.png\n")
    scene = load(capture)
    assert scene.split.rule == "gsplat" and "test.txt lists no photo" in scene.notes[0]


def test_what_a_folder_holds_is_told(tmp_path):
    def message():
        with pytest.raises(FileNotFoundError) as error:
            load(tmp_path)
        text = str(error.value)
        assert text.endswith(" (docs/formats.md lists what is read)") and len(text) < 400
        return text.split(" is not a capture: ")[1].split(" (docs/formats.md")[0]

    assert message().startswith("it is empty; ")
    (tmp_path / "images").mkdir()
    assert message() == "it holds only empty folders (images); put the photos there"
    (tmp_path / "images").rmdir()
    (tmp_path / "notes.md").write_text("")
    assert message() == "it holds only notes.md; give the folder with the photos"
    (tmp_path / "splats.PLY").write_text("")
    assert "splats, point clouds or meshes (splats.PLY); a capture is photos" in message()
    (tmp_path / "capture.zip").write_text("")
    assert "archives (capture.zip) and splats" in message() and "unpack capture.zip" in message()
    (tmp_path / "deep/er").mkdir(parents=True)
    photo = Image.new("RGB", (8, 8))
    photo.save(tmp_path / "deep/er/0.png")
    assert message().startswith("its photos lie deeper (in deep)")
    (tmp_path / "images_4").mkdir()
    photo.save(tmp_path / "images_4/0.png")
    assert "--image_folder images_4" in message()
    write_capture(tmp_path / "garden")
    assert message().endswith(f"give one of them, such as {tmp_path / 'garden'}")
