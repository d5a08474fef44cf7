# Each export of the known capture, read back, must see the true points in their true colours.
from pathlib import Path

import numpy as np
import pytest
import torch

import scenes
from scenes.formats.registry import FORMATS
from scenes.undistort import compute_undistortion
from tests.scenes.formats import exports
from tests.scenes.known import measure_color_error

WRITERS = {
    "Polycam": exports.write_polycam,
    "Record3D": exports.write_record3d,
    "LLFF": exports.write_llff,
    "Metashape": exports.write_metashape,
    "RealityCapture": exports.write_realitycapture,
    "OpenSfM": exports.write_opensfm,
    "AliceVision": exports.write_alicevision,
    "OpenMVG": exports.write_openmvg,
    "Bundler": exports.write_bundler,
    "VisualSFM": exports.write_nvm,
}


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
    place, format = next((f.find(root), f) for f in FORMATS if f.find(root))
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
    u = views.K[0, 0] * x + views.K[0, 2] - 0.5  # to OpenCV's pixel centres
    v = views.K[1, 1] * y + views.K[1, 2] - 0.5
    assert np.abs(maps[0] - u).max() < 0.01 and np.abs(maps[1] - v).max() < 0.01


@pytest.mark.parametrize("kind", WRITERS)
def test_an_export_of_the_known_capture_is_read_right(tmp_path, known, kind):
    check(tmp_path, known, WRITERS[kind](tmp_path, known), kind)


@pytest.mark.parametrize("kind", ["perspective", "fisheye"])
def test_other_cameras_of_opensfm(tmp_path, known, kind):
    check(tmp_path, known, exports.write_opensfm(tmp_path, known, kind), "OpenSfM")


@pytest.mark.parametrize("version", [(1, 0, 0), (1, 2, 1), (1, 2, 2), (1, 2, 11)])
def test_other_versions_of_alicevision(tmp_path, known, version):
    views = exports.write_alicevision(tmp_path, known, version, "radial3")
    check(tmp_path, known, views, "AliceVision")


def test_a_shared_calibration_of_visualsfm(tmp_path, known):
    check(tmp_path, known, exports.write_nvm(tmp_path, known, fixed=True), "VisualSFM")


def test_intrinsics_of_each_frame_of_record3d(tmp_path, known):
    check(tmp_path, known, exports.write_record3d(tmp_path, known, per_frame=True), "Record3D")


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
        scene = check(root, known, exports.write_metashape(root, known, **options), "Metashape")
        assert "1 photo that Metashape did not align (blurred)" in scene.notes[0]


def test_a_realitycapture_csv_that_counts_its_cameras(tmp_path, known):
    views = exports.write_realitycapture(tmp_path, known, counted=True)
    check(tmp_path, known, views, "RealityCapture")
