# Choice of references: nearest in units of the scene, by co-visibility, none that shows nothing.
import pytest
import torch

from scenes.cameras import Cameras
from scenes.nearest import (
    choose_references,
    measure_covisibility,
    measure_pose_distances,
    measure_spacing,
)


def cameras(positions, turns=None) -> Cameras:
    """Cameras looking along z, turned about y by `turns` radians."""
    n = len(positions)
    viewmats = torch.eye(4).repeat(n, 1, 1)
    for i in range(n):
        t = torch.tensor(0.0 if turns is None else turns[i])
        rotation = torch.tensor([[t.cos(), 0, t.sin()], [0, 1, 0], [-t.sin(), 0, t.cos()]])
        viewmats[i, :3, :3] = rotation
        viewmats[i, :3, 3] = -rotation @ torch.tensor(positions[i], dtype=torch.float32)
    K = torch.tensor([[50.0, 0, 50], [0, 50, 50], [0, 0, 1]])
    return Cameras(viewmats, K.repeat(n, 1, 1), torch.tensor([[100, 100]]).repeat(n, 1))


@pytest.mark.parametrize("unit", [0.01, 1.0, 1000.0])
def test_the_choice_does_not_depend_on_the_unit_of_the_scene(unit):
    photos = cameras([[unit * i, 0, 0] for i in range(6)], turns=[0, 0.9, 0, 0, 0, 0])
    views = cameras([[unit * 1.2, 0, 0]])
    assert choose_references(views, photos, 2) == [[2, 1]]  # 0.8 away against 0.2 away and 0.9 rad
    assert measure_spacing(photos) == pytest.approx(unit)


def test_distance_is_translation_in_spacings_plus_the_angle():
    photos = cameras([[0, 0, 0], [2, 0, 0]], turns=[0.0, 0.5])
    distances = measure_pose_distances(cameras([[0, 0, 1]]), photos)
    assert distances[0, 0].item() == pytest.approx(0.5, abs=1e-4)
    assert distances[0, 1].item() == pytest.approx(5**0.5 / 2 + 0.5, abs=1e-4)


def test_nothing_is_chosen_that_looks_away():
    photos = cameras([[0, 0, 0], [0.1, 0, 0]], turns=[torch.pi, torch.pi])
    assert choose_references(cameras([[0, 0, 0]]), photos, 2) == [[]]
    assert choose_references(cameras([[0, 0, 0]]), photos, 2, torch.full((1, 100, 100), 3.0)) == [
        []
    ]


def test_depth_decides_what_is_seen():
    """At depth 2 a photo five units to the side sees nothing; at depth 20 most of it."""
    view, photos = cameras([[0, 0, 0]]), cameras([[5, 0, 0]])
    assert measure_covisibility(view, photos, torch.full((1, 100, 100), 2.0)).item() == 0
    assert measure_covisibility(view, photos, torch.full((1, 100, 100), 20.0)).item() > 0.8
    assert choose_references(view, photos, 1, torch.full((1, 100, 100), 2.0)) == [[]]


def test_depth_prefers_the_photo_that_sees_more():
    """The nearer photo is turned away by half; the farther one sees all."""
    photos = cameras([[0.1, 0, 0], [1.0, 0, -1]], turns=[0.8, 0.0])
    assert choose_references(cameras([[0, 0, 0]]), photos, 1, torch.full((1, 100, 100), 5.0)) == [
        [1]
    ]


def test_unknown_depth_does_not_count():
    depth = torch.zeros(1, 100, 100)
    depth[:, :, 60:] = 10.0
    share = measure_covisibility(cameras([[0, 0, 0]]), cameras([[0, 0, 0]]), depth)
    assert share.item() == pytest.approx(1.0)
    assert choose_references(cameras([[0, 0, 0]]), cameras([[0, 0, 0]]), 1, 0 * depth) == [[]]


@pytest.mark.parametrize("positions", [[[1, 2, 3]], [[0, 0, 0]] * 4])
def test_degenerate_captures_give_finite_distances(positions):
    photos = cameras(positions)
    assert measure_pose_distances(photos, photos).isfinite().all()
    assert measure_spacing(photos) == 1.0
    assert choose_references(photos, photos, 9)[0][0] == 0


def test_no_photos_no_references():
    empty = cameras([[0, 0, 0]])[torch.zeros(0, dtype=torch.long)]
    assert choose_references(cameras([[0, 0, 0]] * 2), empty, 3) == [[], []]
    with pytest.raises(ValueError, match="at least one"):
        choose_references(empty, empty, 0)
