# Procedural places: the same seed gives the same photos, depth is exact, pictures show something.
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from scenes.cameras import Cameras
from scenes.procedural import generate, write
from scenes.procedural.builder import Builder
from scenes.procedural.places import Place
from scenes.procedural.scene import ProceduralScene

ROOT = Path(__file__).parents[2]
KINDS = ("room", "tabletop", "courtyard")


@cache
def place(seed: int, kind: str | None = None) -> ProceduralScene:
    return generate(seed, kind)


def unproject(camera: Cameras, depth: torch.Tensor) -> torch.Tensor:
    """World points [H*W, 3] of one view's pixels."""
    width, height = camera.size
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    K = camera.Ks[0].double()
    rays = torch.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], torch.ones_like(u)], -1)
    local = (rays.double() * depth.double()[..., None]).reshape(-1, 3)
    pose = torch.linalg.inv(camera.viewmats[0].double())
    return local @ pose[:3, :3].T + pose[:3, 3]


def project(camera: Cameras, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixel positions [P, 2] and z-depths [P]."""
    view, K = camera.viewmats[0].double(), camera.Ks[0].double()
    local = points.double() @ view[:3, :3].T + view[:3, 3]
    image = local @ K.T
    return image[:, :2] / image[:, 2:], local[:, 2]


def seen(camera, image, depth, points):
    """Which points this view sees, and the colours there."""
    width, height = camera.size
    uv, z = project(camera, points)
    column, row = uv.floor().long().unbind(1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height) & (z > 0.05)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    visible = inside & ((depth[row, column] - z).abs() < 0.02 * z)
    return visible, image[row, column]


def test_a_seed_gives_the_same_photos_to_the_last_bit():
    first, second = place(3, "room"), generate(3, "room")
    cameras = first.capture(2, 64, 48)
    assert torch.equal(cameras.viewmats, second.capture(2, 64, 48).viewmats)
    for a, b in zip(first.render(cameras), second.render(cameras), strict=True):
        assert torch.equal(a, b)


def test_another_seed_gives_another_place():
    cameras = place(3, "room").capture(1, 64, 48)
    a, b = (place(seed, "room").render(cameras)[0] for seed in (3, 4))
    assert (a - b).abs().mean() > 0.03


def test_a_view_does_not_depend_on_the_views_around_it():
    scene = place(3, "room")
    cameras = scene.capture(3, 48, 32)
    together = scene.render(cameras)[0]
    assert torch.equal(together[1:2], scene.render(cameras[1])[0])


def test_depth_of_a_ball_and_a_floor_is_analytic():
    builder = Builder(np.random.default_rng(0))
    grey = builder.material(np.full((4, 4, 3), 0.5, np.float32))
    builder.box((0, 0, -0.5), (40, 40, 1), grey)
    builder.ball((0, 0, 1), 0.5, grey)
    world = builder.build(sky_light=1.0)
    scene = ProceduralScene(0, "courtyard", Place((0, 0, 1), 3, (1, 1.5), (5, 5)), world)
    cameras = scene.capture(4, 80, 60, "orbit")
    _, depths = scene.render(cameras)
    hits = 0
    for k, depth in enumerate(depths):
        points = unproject(cameras[k], depth)
        from_ball = (points - torch.tensor([0, 0, 1.0])).norm(dim=1) - 0.5
        from_sky = points.norm(dim=1) - world.dome
        error = torch.stack([from_ball, points[:, 2], from_sky]).abs().min(0).values
        assert (error < 1e-4 * points.norm(dim=1).clamp(min=1)).all()
        hits += int((from_ball.abs() < 1e-4).sum())
    assert hits > 100


@pytest.mark.parametrize("kind", KINDS)
def test_views_agree_on_colours_where_both_see_a_point(kind):
    scene = place(3, kind)
    cameras = scene.capture(40, 128, 96, "orbit")[[0, 1]]
    images, depths = scene.render(cameras)
    visible, there = seen(cameras[1], images[1], depths[1], unproject(cameras[0], depths[0]))
    assert visible.float().mean() > 0.3
    difference = (images[0].reshape(-1, 3) - there).abs().mean(1)[visible]
    assert difference.median() < 0.03


def test_pictures_look_like_something_and_cameras_stay_outside_of_things():
    for seed in range(20):
        scene = place(seed)
        cameras = scene.capture(6, 64, 48, ("orbit", "walk")[seed % 2])
        images, depths = scene.render(cameras)
        name = f"{scene.kind} {seed}"
        assert images.isfinite().all() and images.min() >= 0 and images.max() <= 1, name
        assert 0.25 < images.mean() < 0.8, name
        assert images.std() > 0.1, name
        edges = (images[:, :, 1:] - images[:, :, :-1]).abs().amax(-1) > 0.08
        assert 0.02 < edges.float().mean() < 0.6, name
        assert depths.min() > 0.1, name
        assert depths.flatten(1).median(1).values.min() > 0.4, name


@pytest.mark.parametrize("path", ["orbit", "walk"])
def test_paths_have_the_wanted_size_and_field_of_view(path):
    cameras = place(3, "room").capture(5, 60, 80, path)
    assert len(cameras) == 5 and cameras.size == (60, 80)
    field_of_view = 2 * torch.atan(40 / cameras.Ks[:, 1, 1]).rad2deg()
    assert (field_of_view > 59.9).all() and (field_of_view < 70.1).all()
    up = -cameras.camtoworlds[:, 2, 1]
    assert (up > 0.7).all()


def test_points_lie_on_what_the_views_see_and_have_its_colour():
    scene = place(3, "room")
    cameras = scene.capture(4, 128, 96)
    points, colours = scene.points(cameras, 400, noise=0.0)
    assert points.shape == colours.shape == (400, 3)
    images, depths = scene.render(cameras)
    agree = torch.zeros(400, dtype=torch.bool)
    for k in range(4):
        visible, there = seen(cameras[k], images[k], depths[k], points)
        agree |= visible & ((there - colours).abs().amax(1) < 0.02)
    assert agree.float().mean() > 0.98


def test_a_written_scene_is_a_colmap_model_with_its_photos(tmp_path):
    import pycolmap
    from PIL import Image

    folder = write(tmp_path / "place", 3, kind="room", n_views=3, width=64, height=48, points=90)
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    assert sorted(i.name for i in model.images.values()) == [
        f"frame_0000{k}.png" for k in (1, 2, 3)
    ]
    assert len(model.points3D) == 90
    image = np.asarray(Image.open(folder / "images" / "frame_00002.png"))
    scene = place(3, "room")
    expected = scene.render(scene.capture(3, 64, 48)[1])[0][0]
    assert image.shape == (48, 64, 3)
    assert np.abs(image / 255 - expected.numpy()).max() < 0.003
    assert [p.name for p in tmp_path.iterdir()] == ["place"]


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match="is not empty"):
        write(tmp_path, 0, n_views=1)
    assert (tmp_path / "photo.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate(0, "cave"), "unknown kind 'cave'"),
        (lambda: generate(-1), "must not be negative"),
        (lambda: place(3, "room").capture(2, 8, 8, "fly"), "unknown path 'fly'"),
        (lambda: place(3, "room").capture(0, 8, 8), "at least 1"),
        (lambda: place(3, "room").capture(3, 10**9, 8), "at most 16384 pixels"),
        (lambda: write("new", 0, width=8, height=10**9), "--width 8: give at least 16"),
        (lambda: write("new", 0, height=10**9), "at most 16384 pixels"),
        (lambda: write("new", 0, n_views=2), "--views 2: give at least 3"),
    ],
)
def test_wrong_inputs_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_command_writes_a_scene_and_refuses_wrong_input(tmp_path):
    command = [sys.executable, "-m", "scenes.procedural", str(tmp_path / "out"), "--views", "3"]
    small = ["--width", "32", "--height", "24", "--kind", "room", "--path", "walk", "--seed", "3"]
    done = subprocess.run([*command, *small], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "images").iterdir())) == 3
    for wrong in (["--kind", "cave"], []):  # the second: the folder is not empty now
        out = tmp_path / ("new" if wrong else "out")
        done = subprocess.run(
            [*command[:3], str(out), *wrong], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert ("courtyard" if wrong else "error: ") in done.stderr
