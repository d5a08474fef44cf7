# Panoramas become perspective views whose cameras agree with COLMAP's equirectangular model.
import json
import shutil

import numpy as np
import pycolmap
import pytest
from PIL import Image

import scenes
from scenes.panoramas import VIEWS, make_panorama_lens
from tests.scenes.captures import camera_ring

WIDTH, HEIGHT = 512, 256
DIRECTIONS = np.array(  # one dot a view, away from its middle, in the panorama's camera
    [[0.3, -0.2, 1], [1, 0.4, 0.1], [0.2, 0.3, -1], [-1, -0.3, 0.2], [0.1, -1, 0.3], [-0.3, 1, 0.2]]
)


def draw(directions):
    """A panorama with a Gaussian dot in each direction, where COLMAP's model projects it."""
    camera = pycolmap.Camera(
        model="EQUIRECTANGULAR", width=WIDTH, height=HEIGHT, params=[WIDTH, HEIGHT]
    )
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    elevation = np.pi * (0.5 - y / HEIGHT)
    azimuth = 2 * np.pi * (x / WIDTH - 0.5)
    rays = np.stack(
        [
            np.cos(elevation) * np.sin(azimuth),
            -np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ],
        -1,
    )
    # the dots are round on the sphere; that they are where COLMAP says is checked
    image = np.zeros((HEIGHT, WIDTH))
    for direction in directions:
        direction = direction / np.linalg.norm(direction)
        dot = np.exp(-(1 - rays @ direction) / 0.0015)
        peak = np.unravel_index(dot.argmax(), dot.shape)
        assert np.abs(camera.img_from_cam(direction) - np.array(peak)[::-1] - 0.5).max() < 1.5
        image = np.maximum(image, dot)
    return np.repeat((255 * image).round().astype(np.uint8)[..., None], 3, 2)


def write_colmap(root, viewmats):
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(
            model="EQUIRECTANGULAR", width=WIDTH, height=HEIGHT, params=[WIDTH, HEIGHT], camera_id=1
        )
    )
    for i, viewmat in enumerate(viewmats):
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=f"{i}.png", camera_id=1, image_id=i + 1),
            pycolmap.Rigid3d(viewmat[:3]),
        )
    (root / "sparse/0").mkdir(parents=True)
    model.write_binary(root / "sparse/0")


def write_transforms(root, viewmats):
    poses = np.linalg.inv(viewmats) @ np.diag([1.0, -1, -1, 1])
    frames = [
        {"file_path": f"images/{i}.png", "transform_matrix": pose.tolist()}
        for i, pose in enumerate(poses)
    ]
    content = {"camera_model": "EQUIRECTANGULAR", "w": WIDTH, "h": HEIGHT, "frames": frames}
    (root / "transforms.json").write_text(json.dumps(content))


@pytest.mark.parametrize("write", [write_colmap, write_transforms])
def test_dots_on_the_sphere_land_where_the_pinholes_say(tmp_path, write):
    viewmats = camera_ring(4)
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.fromarray(draw(DIRECTIONS)).save(tmp_path / f"images/{i}.png")
    write(tmp_path, viewmats)
    scene = scenes.load(tmp_path, progress=False)
    size = round(WIDTH / np.pi)
    assert len(scene) == 24 and scene.cameras.size == (size, size)
    assert scene.names[:6] == tuple(f"0_{view}.png" for view in sorted(VIEWS))
    assert any(note.startswith("4 panoramas cut into 6 views each") for note in scene.notes)
    middle = 2 * np.degrees(np.arctan(size / 2 / scene.cameras.Ks[0, 0, 0].item()))
    assert middle == pytest.approx(90)

    seen = np.zeros(len(DIRECTIONS))
    y, x = np.mgrid[:size, :size] + 0.5
    for i, (image, viewmat) in enumerate(zip(scene.images, scene.cameras.viewmats, strict=True)):
        pano = viewmats[i // 6]
        assert np.allclose(  # all views of a panorama share its position
            np.linalg.inv(viewmat.double())[:3, 3], np.linalg.inv(pano)[:3, 3], atol=1e-5
        )
        turn = viewmat[:3, :3].double().numpy() @ pano[:3, :3].T
        for number, direction in enumerate(DIRECTIONS):
            at = turn @ direction
            if at[2] <= 0 or np.abs(at[:2] / at[2]).max() > 0.85:
                continue
            K = scene.cameras.Ks[i].double().numpy()
            expected = (K @ at / at[2])[:2]
            near = np.hypot(x - expected[0], y - expected[1]) < 12
            weight = image[..., 0] * near.astype(float)
            weight[weight < 100] = 0
            centre = [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]
            assert np.abs(np.array(centre) - expected).max() < 0.4
            seen[number] += 1
    assert (seen == 4).all()  # each once a panorama


def test_views_of_a_panorama_are_held_out_together(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(9):
        Image.new("RGB", (WIDTH, HEIGHT), (20 * i, 0, 0)).save(tmp_path / f"images/{i}.png")
    write_colmap(tmp_path, camera_ring(9))
    scene = scenes.load(tmp_path, progress=False, data_factor=2)
    assert scene.cameras.size == (81, 81)
    held_out = {scene.names[i].split("_")[0] for i in scene.split.test}
    assert held_out == {"0", "8"} and len(scene.split.test) == 12
    assert [int(image[40, 40, 0]) for image in scene.images[::6]] == [20 * i for i in range(9)]
    # one smaller copy a panorama, not one a view
    assert len(list((tmp_path / "images_2_cache").iterdir())) == 9
    shutil.rmtree(tmp_path / "images_2_cache")
    assert scenes.load(tmp_path, progress=False, data_factor=0, longest_side=100).data_factor == 2


def test_the_lens_is_colmaps():
    lens = make_panorama_lens(640, 320)
    assert lens.K[0, 0] == pytest.approx(640 / (2 * np.pi)) and not lens.is_pinhole
