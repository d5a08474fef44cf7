# A dot drawn where the distortion model puts a 3D point must land where the pinhole result says.
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from PIL import Image

import scenes
from scenes.capture import Lens
from scenes.formats import colmap
from scenes.formats.colmap_files import PARAMS_OF, ModelCamera
from scenes.undistort import compute_undistortion, project_rays
from tests.scenes.captures import camera_ring, write_capture

LENSES = {
    "SIMPLE_RADIAL": [210, 122, 78, -0.12],
    "RADIAL": [210, 118, 81, 0.1, -0.05],
    "OPENCV": [205, 212, 123, 79, -0.2, 0.06, 0.003, -0.004],
    "OPENCV_FISHEYE": [150, 152, 121, 79, 0.02, -0.01, 0.004, -0.001],
    "FULL_OPENCV": [205, 212, 123, 79, -0.2, 0.06, 0.003, -0.004, 0.01, 0.02, -0.01, 0.005],
    "SIMPLE_FISHEYE": [150, 121, 79],
    "FISHEYE": [150, 152, 121, 79],
    "SIMPLE_RADIAL_FISHEYE": [150, 121, 79, 0.02],
    "RADIAL_FISHEYE": [150, 121, 79, 0.02, -0.01],
    "SIMPLE_DIVISION": [200, 121, 79, -0.2],
    "DIVISION": [200, 203, 121, 79, -0.2],
    "FOV": [150, 152, 121, 79, 0.9],
    "THIN_PRISM_FISHEYE": [
        *(150, 152, 121, 79, 0.02, -0.01, 0.002, -0.001, 0.004, -0.001, 0.002, 0.001),
    ],
    "RAD_TAN_THIN_PRISM_FISHEYE": [
        *(150, 152, 121, 79, 0.02, -0.01, 0.002, -0.001, 0.001, 0, 0.002, 0.001),
        *(0.001, -0.001, 0.001, 0.0005),
    ],
    "EUCM": [150, 152, 121, 79, 0.6, 1.1],
}
WIDTH, HEIGHT = 240, 160


def draw_dot(xy: np.ndarray) -> np.ndarray:
    """A Gaussian dot whose centre is xy, pixel centres at half-integers; uint8 [H, W, 3]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dot = np.exp(-((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / (2 * 2.0**2))
    return np.repeat((255 * dot).round().astype(np.uint8)[:, :, None], 3, 2)


def centre_of_dot(image: np.ndarray) -> np.ndarray:
    weight = image[:, :, 0].astype(float)
    weight[weight < 5] = 0
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("model", LENSES)
def test_a_dot_lands_where_the_pinhole_says(tmp_path, model):
    names = [f"{i}.png" for i in range(9)]
    write_capture(tmp_path, names, cameras=[(model, WIDTH, HEIGHT, LENSES[model])])
    camera = pycolmap.Camera(model=model, width=WIDTH, height=HEIGHT, params=LENSES[model])
    viewmats = camera_ring(9)
    points = []
    for i, viewmat in enumerate(viewmats):  # one 3D point a view, spread over the photo
        at_camera = np.array([0.32 * (i % 3 - 1), 0.2 * (i // 3 - 1), 1.0]) * (2 + 0.1 * i)
        points.append(viewmat[:3, :3].T @ (at_camera - viewmat[:3, 3]))
        dot = draw_dot(camera.img_from_cam(at_camera))
        Image.fromarray(dot).save(tmp_path / "images" / names[i])

    scene = scenes.load(tmp_path, progress=False)
    assert scene.cameras.size == (WIDTH, HEIGHT)
    for image, K, viewmat, point in zip(
        scene.images, scene.cameras.Ks, scene.cameras.viewmats, points, strict=True
    ):
        x, y, z = K.double().numpy() @ (viewmat.double().numpy() @ [*point, 1])[:3]
        assert np.abs(centre_of_dot(image) - [x / z, y / z]).max() < 0.1


def lens_of(model: str, scale: int = 1) -> tuple[Lens, pycolmap.Camera]:
    """The lens as the reader makes it, for photos of `scale` times the size, and COLMAP's own."""
    camera = pycolmap.Camera(model=model, width=WIDTH, height=HEIGHT, params=LENSES[model])
    lens = colmap.make_lens(ModelCamera(model, WIDTH, HEIGHT, camera.params.tolist()))
    camera.rescale(scale * WIDTH, scale * HEIGHT)
    return lens.resized(scale * WIDTH, scale * HEIGHT), camera


def test_every_model_of_this_pycolmap_is_read():
    known = {name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"}
    assert known <= set(PARAMS_OF) == {*LENSES, "SIMPLE_PINHOLE", "PINHOLE", "EQUIRECTANGULAR"}
    for name in known:
        camera = pycolmap.Camera.create_from_model_name(1, name, 50, 64, 48)
        assert len(camera.params) == PARAMS_OF[name] and list(PARAMS_OF)[int(camera.model)] == name


@pytest.mark.parametrize("model", LENSES)
def test_maps_agree_with_colmap_to_a_thousandth_of_a_pixel(model):
    lens, camera = lens_of(model, 2)
    pinhole, map_x, map_y = compute_undistortion(lens)
    y, x = np.mgrid[: 2 * HEIGHT, : 2 * WIDTH] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3) @ np.linalg.inv(pinhole.K).T
    expected = camera.img_from_cam(rays) - 0.5  # to OpenCV's pixel centres
    maps = np.stack([map_x, map_y], -1).reshape(-1, 2)
    assert np.abs(maps - expected).max() < 1e-3


@pytest.mark.parametrize("model", LENSES)
def test_every_pixel_of_the_result_comes_from_inside_the_photo(model):
    pinhole, map_x, map_y = compute_undistortion(lens_of(model)[0])
    assert pinhole.is_pinhole and (pinhole.width, pinhole.height) == (WIDTH, HEIGHT)
    assert map_x.min() >= -0.5 and map_x.max() <= WIDTH - 0.5
    assert map_y.min() >= -0.5 and map_y.max() <= HEIGHT - 0.5
    # and not much is thrown away: some border of the photo is reached
    assert min(map_x.min(), map_y.min()) < 4 or max(map_x.max() - WIDTH, map_y.max() - HEIGHT) > -5


def brown(x, y, k1, k2, k3, k4, p1, p2):
    """Metashape's frame camera (its manual, appendix D) with nerfstudio's order of p1 and p2."""
    r = np.hypot(x, y)
    radial = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6 + k4 * r**8
    return (
        x * radial + p2 * (r**2 + 2 * x**2) + 2 * p1 * x * y,
        y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y,
    )


@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_the_fourth_radial_term_and_skew(skew):
    K = np.array([[205.0, skew, 123], [0, 212, 79], [0, 0, 1]])
    lens = Lens(WIDTH, HEIGHT, K, (-0.2, 0.06, 0.003, -0.004, 0.03, 0.12), model="BROWN")
    pinhole, map_x, map_y = compute_undistortion(lens)
    assert pinhole.is_pinhole
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    (fx, fy), (cx, cy) = pinhole.K[[0, 1], [0, 1]], pinhole.K[:2, 2]
    terms = {"k1": -0.2, "k2": 0.06, "p1": 0.003, "p2": -0.004, "k3": 0.03, "k4": 0.12}
    x, y = brown((columns - cx) / fx, (rows - cy) / fy, **terms)
    assert np.abs(map_x + 0.5 - (205 * x + skew * y + 123)).max() < 1e-3
    assert np.abs(map_y + 0.5 - (212 * y + 79)).max() < 1e-3
    assert map_x.min() >= -0.5 and map_x.max() <= WIDTH - 0.5


@pytest.mark.parametrize("lens", ["OPENCV", "OPENCV_FISHEYE", "FULL_OPENCV", "RADIAL"])
def test_skew_is_removed_from_the_lenses_of_opencv(lens):
    plain = lens_of(lens)[0]
    rays = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 2))
    sheared = replace(plain, K=plain.K + np.array([[0, 4.0, 0], [0, 0, 0], [0, 0, 0]]))
    moved = project_rays(sheared, rays) - project_rays(plain, rays)
    y = (project_rays(plain, rays)[:, 1] - plain.K[1, 2]) / plain.K[1, 1]
    assert np.allclose(moved, np.column_stack([4 * y, np.zeros(50)]))
    assert compute_undistortion(sheared)[0].is_pinhole


@pytest.mark.parametrize("focal", [320.0, 250.0])  # 180 degrees and more across 1000 pixels
def test_the_widest_fisheye_lenses_keep_their_middle(focal):
    K = np.array([[focal, 0, 500.0], [0, focal, 490.0], [0, 0, 1]])
    pinhole, map_x, map_y = compute_undistortion(
        Lens(1000, 1000, K, (0.0, 0.0, 0.0, 0.0), fisheye=True)
    )
    assert 130 < 2 * np.degrees(np.arctan(500 / pinhole.K[0, 0])) < 137
    assert pinhole.K[:2, 2].tolist() == [500, 490]
    assert min(map_x.min(), map_y.min()) >= -0.5 and max(map_x.max(), map_y.max()) <= 999.5


FOLDED = {
    "OPENCV": [60, 60, 32, 24, -9, 40, 0.5, 0.5],
    "FULL_OPENCV": [60, 60, 32, 24, -9, 40, 0.5, 0.5, 0, 0, 0, 0],
    "THIN_PRISM_FISHEYE": [60, 60, 32, 24, -9, 40, 0.5, 0.5, 0, 0, 0, 0],
}


@pytest.mark.parametrize("model", FOLDED)
def test_a_distortion_that_folds_over_is_refused(tmp_path, model):
    write_capture(tmp_path, cameras=[(model, 64, 48, FOLDED[model])])
    with pytest.raises(
        ValueError, match=r"camera of .*000\.png: the distortion .* folds over.*export"
    ):
        scenes.load(tmp_path, progress=False)


def test_zero_distortion_leaves_photos_untouched(tmp_path):
    names = write_capture(tmp_path, cameras=[("OPENCV", 64, 48, [60, 61, 32, 24, 0, 0, 0, 0])])
    scene = scenes.load(tmp_path, progress=False)
    stored = np.array(Image.open(tmp_path / "images" / names[0]))
    assert np.array_equal(scene.images[0], stored)
    assert scene.cameras.Ks[0].tolist() == [[60, 0, 32], [0, 61, 24], [0, 0, 1]]
