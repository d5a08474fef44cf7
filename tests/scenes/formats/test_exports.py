# Each export of the known capture, read back, must see the true points in their true colours.
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scenes
from scenes.formats.photo_names import match_photos
from scenes.formats.registry import FORMATS
from scenes.photos import find_photos
from scenes.undistort import compute_undistortion
from tests.scenes.captures import write_capture
from tests.scenes.formats import exports
from tests.scenes.known import measure_color_error


def check(root, known, views, kind=None):
    """What is read from `root` are the cameras of `views`, and points in the colours of photos."""
    scene = scenes.load(root, progress=False)
    assert len(scene) == len(known) and not scene.needs_points and kind in (None, scene.kind)
    order = [views.names.index(Path(name).name) for name in scene.names]
    assert np.allclose(scene.cameras.viewmats, views.viewmats[order], atol=1e-5)
    check_lens(root, views)
    points, colors = torch.from_numpy(views.points), torch.from_numpy(views.colors / 255).float()
    if len(scene.points):
        assert torch.allclose(scene.points.double(), points, atol=1e-5)
    if scene.kind != "OpenMVG" and len(scene.points):
        assert torch.allclose(scene.point_colors, colors, atol=1e-6)
    assert measure_color_error(scene, points, colors) < 1.1 * views.error
    return scene


def check_lens(root, views):
    """The lens that is read sees rays within a hundredth of a pixel of where the true one does."""
    place, format = next((f.find(root)[0], f) for f in FORMATS if f.find(root))
    lens = format.read(place, root, None).lenses[0]
    assert (lens.width, lens.height) == (views.width, views.height)
    assert lens.is_pinhole == (views.distort is None)
    if lens.is_pinhole:
        assert np.allclose(lens.K, views.K, atol=1e-6)
        return
    pinhole, *maps = compute_undistortion(lens)
    y, x = np.mgrid[: views.height, : views.width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(pinhole.K).T
    x, y = views.distort(rays[..., 0], rays[..., 1])
    u = views.K[0, 0] * x + views.K[0, 1] * y + views.K[0, 2] - 0.5  # to OpenCV's pixel centres
    v = views.K[1, 1] * y + views.K[1, 2] - 0.5
    assert np.abs(maps[0] - u).max() < 0.01 and np.abs(maps[1] - v).max() < 0.01


@pytest.mark.parametrize("kind", exports.WRITERS)
def test_an_export_of_the_known_capture_is_read_right(tmp_path, known, kind):
    check(tmp_path, known, exports.WRITERS[kind](tmp_path, known), kind)


@pytest.mark.parametrize("kind", ["perspective", "fisheye"])
def test_other_cameras_of_opensfm(tmp_path, known, kind):
    check(tmp_path, known, exports.write_opensfm(tmp_path, known, kind), "OpenSfM")


@pytest.mark.parametrize("version", [(1, 0, 0), (1, 2, 1), (1, 2, 2), (1, 2, 11)])
def test_other_versions_of_alicevision(tmp_path, known, version):
    views = exports.write_alicevision(tmp_path, known, version, "radial3")
    check(tmp_path, known, views, "AliceVision")


def test_a_shared_calibration_of_visualsfm(tmp_path, known):
    check(tmp_path, known, exports.write_nvm(tmp_path, known, fixed=True), "VisualSFM")


def test_intrinsics_of_each_frame_of_an_unpacked_r3d(tmp_path, known):
    views = exports.write_record3d(tmp_path, known, True, photos="rgbd", metadata="metadata")
    check(tmp_path, known, views, "Record3D")


def test_polycam_without_optimised_poses_says_so(tmp_path, known):
    scene = check(tmp_path, known, exports.write_polycam(tmp_path, known, kind=""), "Polycam")
    assert "no corrected_cameras" in scene.notes[0]


def test_other_shapes_of_metashape(tmp_path, known):
    for i, options in enumerate(
        (
            {"kind": "fisheye", "component": False},
            {"points": "world", "suffix": ".JPG"},
        )
    ):
        root = tmp_path / str(i)
        views = exports.write_metashape(root, known, **options)
        photo = next(root.rglob(f"{Path(views.names[0]).stem}.*"))
        shutil.copy(photo, photo.with_stem("blurred"))
        scene = check(root, known, views, "Metashape")
        assert "1 photo in" in scene.notes[0] and "has no pose" in scene.notes[0]
        assert scene.notes[0].endswith(photo.with_stem("blurred").name)


@pytest.mark.parametrize("points", ["chunk", "world"])
def test_a_georeferenced_metashape_project_loses_no_digits(tmp_path, known, points):
    """Geocentric coordinates, as of a project on the ground: 6,371 km from the origin."""
    shift = np.array([4_186_123.25, 834_567.75, 4_723_456.5])
    views = exports.write_metashape(tmp_path, known, points=points, shift=tuple(shift))
    scene = scenes.load(tmp_path, progress=False)
    moved = torch.from_numpy(views.points + shift) @ scene.transform[:3, :3].T
    assert torch.allclose(scene.points.double(), moved + scene.transform[:3, 3], atol=1e-5)
    assert measure_color_error(scene) < 1.1 * views.error


def test_a_realitycapture_csv_that_counts_its_cameras(tmp_path, known):
    views = exports.write_realitycapture(tmp_path, known, counted=True)
    check(tmp_path, known, views, "RealityCapture")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Eight views of 64x48, 000.png to 007.png, for what needs no true colours."""
    root = tmp_path_factory.mktemp("small")
    write_capture(root)
    return scenes.load(root, progress=False)


def replace_in(name, old, new):
    def edit(root):
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return edit


def remove(*names):
    def edit(root):
        for name in names:
            (root / name).unlink()

    return edit


@pytest.mark.parametrize(
    ("kind", "edit", "sentence"),
    [
        ("Metashape", replace_in("cameras.xml", "<document", "<!DOCTYPE x>\n<document"), "type"),
        ("Metashape", replace_in("cameras.xml", "</chunk>", ""), "not valid XML"),
        ("Metashape", replace_in("cameras.xml", "chunk", "camera"), "it has no chunk"),
        ("Metashape", replace_in("cameras.xml", 'type="frame"', 'type="spherical"'), "2:1"),
        ("Metashape", replace_in("cameras.xml", 'type="frame"', 'type="cylinder"'), "cylinder"),
        ("Metashape", replace_in("cameras.xml", 'sensor_id="0"', 'sensor_id="9"'), "no sensor"),
        ("Metashape", replace_in("cameras.xml", "transform>", "place>"), "no aligned camera"),
        ("Metashape", replace_in("cameras.xml", "<scale>2.5", "<scale>-1"), "the scale -1"),
        ("RealityCapture", replace_in("export.csv", "002.png,", "002.png,x"), 'line 4: "x"'),
        ("OpenSfM", replace_in("reconstruction.json", "brown", "dual"), "of the type dual"),
        ("OpenSfM", replace_in("reconstruction.json", '"shots"', '"shot"'), 'no "shots"'),
        ("OpenMVG", replace_in("sfm_data.json", "pinhole_brown_t2", "spherical"), "spherical"),
        ("OpenMVG", replace_in("sfm_data.json", '"id_pose"', '"pose"'), "no poses of them"),
        ("AliceVision", replace_in("cameras.sfm", '"poseId"', '"pose_id"'), "no poses of them"),
        ("AliceVision", replace_in("cameras.sfm", '"brown"', '"3deradial4"'), "3deradial4"),
        ("Bundler", replace_in("list.txt", "./unposed.jpg", ""), "8 photos, .* 9 cameras"),
        ("Bundler", remove("list.txt"), "no list of its 9 photos"),
        ("VisualSFM", replace_in("scene.nvm", "NVM_V3", "NVM_V4"), 'start with "NVM_V3"'),
        ("VisualSFM", replace_in("scene.nvm", "0.15 0", "-9 0"), "folds over"),
        ("LLFF", remove("images/003.png"), "8 photos, but .* holds 7"),
        ("Record3D", replace_in("metadata.json", '"w"', '"W"'), '"w" must be a finite number'),
        (
            "Polycam",
            replace_in("keyframes/corrected_cameras/004.json", '"t_12"', '"t12"'),
            r"004\.json: the pose",
        ),
    ],
)
def test_bad_exports_get_a_sentence(tmp_path, small, kind, edit, sentence):
    exports.WRITERS[kind](tmp_path, small)
    edit(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as error:
        scenes.load(tmp_path, progress=False)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_photos_are_matched_by_as_much_of_their_path_as_possible(tmp_path):
    photos = ("cam0/1.jpg", "cam1/1.jpg", "a.JPG", "b.png", "b.jpg", "deep/c.jpg", "masks/c.png")
    for name in photos:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = ["C:\\shoot\\cam0\\1.jpg", "/x/cam1/1", "A", "a.heic", "b.jpg", "c", "1.jpg", "b", "d"]
    folder, paths = match_photos(named, [tmp_path / "none", tmp_path / "deep", tmp_path])
    assert folder == tmp_path
    names = [path and path.relative_to(tmp_path).as_posix() for path in paths]
    expected = ["cam0/1.jpg", "cam1/1.jpg", "a.JPG", "a.JPG", "b.jpg", "deep/c.jpg"]
    assert names[:6] == expected and names[6] is None and names[8] is None


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_csv_saved_by_a_spreadsheet(tmp_path, small, separator):
    exports.write_realitycapture(tmp_path, small)
    file = tmp_path / "export.csv"
    head, *rows = file.read_text().splitlines()
    rows = [row.replace(",", separator) for row in rows]
    named = [row.split(separator, 1) for row in rows]
    rows = [separator.join([name, rest.replace(".", ",")]) for name, rest in named]
    file.write_text("\n".join([head.replace(",", separator), *rows]))
    assert np.allclose(scenes.load(tmp_path).cameras.viewmats, small.cameras.viewmats, atol=1e-5)


def test_of_several_files_the_one_of_most_views_is_read(tmp_path, small):
    exports.write_realitycapture(tmp_path, small)
    lines = (tmp_path / "export.csv").read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(lines[:5]))
    scene = scenes.load(tmp_path, progress=False)
    assert len(scene) == len(small)
    assert any("not those of a.csv (4 views)" in note for note in scene.notes)


def test_a_photo_goes_to_the_name_that_fits_best(tmp_path):
    for name in ("cam1/1.jpg", "e\u0301.png", "A.png", "a.png", "2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def match(*named):
        return [
            path and path.relative_to(tmp_path).as_posix() for path in find_photos(tmp_path, named)
        ]

    assert match("cam0/1.jpg", "cam1/1.jpg") == [None, "cam1/1.jpg"]
    assert match("x/2.jpg", "y/2.jpg") == [None, None]
    assert match("\u00e9.png", "\u00c9.PNG") == ["e\u0301.png"] * 2
    assert match("A.png", "a.png", "a") == ["A.png", "a.png", "a.png"]
    for name in ("/etc/2.jpg", "../2.jpg", "C:\\x\\2.JPG"):
        assert match(name, "x" * 300, "\0") == ["2.jpg", None, None]


def test_labels_that_fit_several_photos_are_said(tmp_path, small):
    exports.write_realitycapture(tmp_path, small)
    photos = tmp_path / "images"
    for folder in ("cam0", "cam1"):
        shutil.copytree(photos, tmp_path / folder)
    shutil.rmtree(photos)
    with pytest.raises(ValueError, match=r"may be any of cam0/000\.png, cam1/000\.png"):
        scenes.load(tmp_path, progress=False)


def test_an_export_in_utf_16_is_read(tmp_path, small):
    exports.write_realitycapture(tmp_path, small)
    file = tmp_path / "export.csv"
    file.write_text(file.read_text(), encoding="utf-16")
    assert len(scenes.load(tmp_path, progress=False)) == len(small)
    file.write_text(file.read_text(encoding="utf-16").replace("000.png", "\u00e9.png"), "latin-1")
    with pytest.raises(ValueError, match="is not text in UTF-8; save"):
        scenes.load(tmp_path, progress=False)


@pytest.mark.parametrize(
    ("properties", "note"), [("", "has only 1 point"), ("property float f_dc_0\n", "is splats")]
)
def test_a_ply_beside_that_is_no_cloud_is_not_used(tmp_path, small, properties, note):
    exports.write_realitycapture(tmp_path, small)
    (tmp_path / "export.ply").unlink()
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        f"property float z\n{properties}end_header\n0 0 0 {0 if properties else ''}\n"
    )
    scene = scenes.load(tmp_path, progress=False)
    assert len(scene.points) == 0 and any(f"a.ply {note}" in text for text in scene.notes)


def test_poses_of_llff_with_smaller_photos_only(tmp_path, small):
    exports.write_llff(tmp_path, small)
    (tmp_path / "images").rename(tmp_path / "images_2")
    with pytest.raises(FileNotFoundError, match="use --data_factor 2"):
        scenes.load(tmp_path, progress=False)


def test_views_without_a_photo_are_skipped_with_a_note(tmp_path, small):
    exports.write_realitycapture(tmp_path, small)
    (tmp_path / "images/007.png").unlink()
    scene = scenes.load(tmp_path, progress=False)
    assert len(scene) == len(small) - 1
    assert "names 1 photo not to be found (007.png)" in scene.notes[0]
    for photo in (tmp_path / "images").iterdir():
        photo.unlink()
    with pytest.raises(FileNotFoundError, match=r"none of the 8 photos of .*export\.csv"):
        scenes.load(tmp_path, progress=False)


def test_points_that_no_camera_sees_are_not_used(tmp_path, small):
    views = exports.write_realitycapture(tmp_path, small)
    exports.write_ply(tmp_path / "export.ply", views.points + 1e6, views.colors)
    scene = scenes.load(tmp_path, progress=False)
    assert len(scene.points) == 0 and "hardly any point of export.ply" in scene.notes[0]
    exports.write_ply(tmp_path / "other.ply", views.points, views.colors)
    assert "2 .ply files" in scenes.load(tmp_path, progress=False).notes[0]


def test_equal_labels_in_groups_of_metashape_are_photos_of_equal_folders(tmp_path, small):
    exports.write_metashape(tmp_path, small)
    file = tmp_path / "cameras.xml"
    text = file.read_text()
    middle = '</group><group id="1" label="cam1"><camera id="4" sensor_id="0"'
    text = text.replace('<camera id="4" sensor_id="0"', middle)
    for i in range(8):
        folder = tmp_path / "photos" / f"cam{i // 4}"
        folder.mkdir(exist_ok=True)
        (tmp_path / f"photos/00{i}.png").rename(folder / f"{i % 4}.png")
        text = text.replace(f'label="00{i}"', f'label="{i % 4}"')
    file.write_text(text)
    scene = scenes.load(tmp_path, progress=False)
    assert scene.names == tuple(f"photos/cam{i // 4}/{i % 4}.png" for i in range(8))
    assert np.allclose(scene.cameras.viewmats, small.cameras.viewmats, atol=1e-5)


@pytest.mark.parametrize("kind", ["Metashape", "OpenSfM"])
def test_panoramas_become_six_views(tmp_path, small, kind):
    exports.WRITERS[kind](tmp_path, small)
    name = {"Metashape": "cameras.xml", "OpenSfM": "reconstruction.json"}[kind]
    text = (tmp_path / name).read_text()
    for old, new in {
        **{'type="frame"': 'type="spherical"', '"projection_type": "brown"': PANORAMA},
        **{'width="64"': 'width="96"', '"width": 64': '"width": 96'},
    }.items():
        text = text.replace(old, new)
    (tmp_path / name).write_text(text)
    for photo in tmp_path.rglob("*.png"):
        Image.open(photo).resize((96, 48)).save(photo)
    scene = scenes.load(tmp_path, progress=False)
    assert len(scene) == 6 * len(small)
    front = [i for i, name in enumerate(scene.names) if name.endswith("_front.png")]
    assert np.allclose(scene.cameras.viewmats[front], small.cameras.viewmats, atol=1e-5)


PANORAMA = '"projection_type": "spherical"'


def test_a_fisheye_of_metashape_with_tangential_terms_says_so(tmp_path, small):
    exports.write_metashape(tmp_path, small, kind="fisheye")
    replace_in("cameras.xml", "<k4>", "<p1>0.001</p1><k4>")(tmp_path)
    assert "p1 and p2" in " ".join(scenes.load(tmp_path, progress=False).notes)
