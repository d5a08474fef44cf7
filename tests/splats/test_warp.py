# Warping held against exact depth: right where valid, and not valid where it would be wrong.
import pytest
import torch

from scenes.cameras import Cameras
from scenes.procedural import generate
from splats.warp import warp


@pytest.fixture(scope="module")
def place():
    """Two views of a room, a step apart, with exact depth."""
    scene = generate(3, "room")
    cameras = scene.capture(40, 96, 72, "orbit")[[0, 4]]
    images, depths = scene.render(cameras)
    return cameras, images, depths


def pair(place):
    """Photo 1 for view 0 and photo 0 for view 1, as one batch."""
    cameras, images, depths = place
    return images.flip(0), cameras[[1, 0]], cameras, depths, images, depths.flip(0)


def test_the_photo_lands_where_the_view_has_it(place):
    photos, photo_cameras, cameras, depths, truth, photo_depths = pair(place)
    warped, valid = warp(photos, photo_cameras, cameras, depths, photo_depths=photo_depths)
    assert 0.4 < valid.float().mean() < 1
    moved, unmoved = ((x - truth).abs().mean(-1)[valid].mean() for x in (warped, photos))
    assert moved < 0.03
    assert moved < 0.3 * unmoved
    assert (warped[~valid] == 0).all()


def test_what_the_photo_does_not_see_is_not_valid(place):
    photos, photo_cameras, cameras, depths, truth, photo_depths = pair(place)
    everywhere, inside = warp(photos, photo_cameras, cameras, depths)
    _, visible = warp(photos, photo_cameras, cameras, depths, photo_depths=photo_depths)
    hidden = inside & ~visible
    assert hidden.float().mean() > 0.005
    error = (everywhere - truth).abs().mean(-1)
    assert error[hidden].mean() > 3 * error[visible].mean()


def test_a_view_warped_into_itself_is_itself(place):
    cameras, images, depths = place
    warped, valid = warp(images, cameras, cameras, depths, photo_depths=depths)
    assert valid.all()
    torch.testing.assert_close(warped, images, atol=1e-4, rtol=0)


def test_unknown_depth_low_alpha_and_points_behind_are_not_valid(place):
    cameras, images, depths = place
    depths, alphas = depths.clone(), torch.ones_like(depths)
    depths[:, :10], depths[:, 10:20], alphas[:, 20:30] = 0, float("nan"), 0.2
    warped, valid = warp(images, cameras, cameras, depths, alphas=alphas)
    assert not valid[:, :30].any() and valid[:, 30:].all()
    assert warped.isfinite().all()
    turned = cameras.viewmats.clone()
    turned[:, [0, 2]] *= -1  # about y: the photos look the other way
    away = Cameras(turned, cameras.Ks, cameras.sizes)
    assert not warp(images, away, cameras, place[2])[1].any()


def test_photos_may_have_another_size(place):
    cameras, images, depths = place
    photos, photo_cameras, view = images[1:], cameras[1], cameras[0].scaled(0.5)
    warped, valid = warp(photos, photo_cameras, view, depths[:1, ::2, ::2])
    assert warped.shape == (1, 36, 48, 3) and valid.shape == (1, 36, 48)
