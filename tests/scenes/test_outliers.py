# Cameras and points that were thrown far away do not decide a scene's middle and scale.
import re
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import torch

import scenes
from scenes.nearest import measure_spacing
from scenes.outliers import find_outliers, find_outlying_points
from splats import paths
from splats.view.pictures import choose_initial_view
from tests.scenes.known import write_moved_capture


@pytest.fixture(scope="module")
def thrown(known, tmp_path_factory):
    """The known capture with cameras 0 and 13 thrown away."""
    path = write_moved_capture(tmp_path_factory.mktemp("thrown"), known, (0, 0, 0), (0, 13))
    return scenes.load(path, progress=False)


def test_they_are_named_with_their_distances(thrown, known):
    assert thrown.outliers == (0, 13) and known.outliers == ()
    (note,) = thrown.notes
    assert "2 cameras far from all others" in note
    for view in thrown.outliers:
        pair = re.search(rf"{thrown.names[view]} \((\S+) times .*?, (\S+) units\)", note)
        times, units = (float(number.replace(",", "")) for number in pair.groups())
        far = (thrown.cameras.positions[view] - known.cameras.positions.mean(0)).norm().item()
        assert units == pytest.approx(far, rel=1e-2)
        assert times == pytest.approx(1.1 * far / known.scale, rel=0.3)
    assert len(thrown) == len(known)  # their photos are kept


def test_scale_is_that_of_the_others(thrown, known):
    others = [i for i in range(len(known)) if i not in thrown.outliers]
    assert thrown.scale == replace(known, cameras=known.cameras[others]).scale
    positions = known.cameras.positions
    largest = 1.1 * (positions - positions.mean(0)).norm(dim=1).max().item()
    assert known.scale == largest  # as gsplat's, where there are none


def test_the_normalised_world_is_that_of_the_others(thrown, known):
    near = scenes.load(known.path, normalize=True, progress=False)
    scene = scenes.load(thrown.path, normalize=True, progress=False)
    sizes = [world.points.norm(dim=1).median().item() for world in (near, scene)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_paths_and_first_view_stay_with_the_others(thrown, known):
    reach = 2 * known.scale
    for cameras in (
        paths.interpolate_path(thrown.cameras, 60),
        paths.orbit_path(thrown.cameras, 60),
    ):
        assert cameras.positions.norm(dim=1).max() < reach
    assert (paths.estimate_focus(thrown.cameras) - paths.estimate_focus(known.cameras)).norm() < 0.1
    assert choose_initial_view(None, thrown.cameras).position.norm() < reach
    assert measure_spacing(thrown.cameras) == pytest.approx(measure_spacing(known.cameras), rel=0.3)


def on_line(distances):
    return np.array([[d, 0.0, 0.0] for d in distances])


@pytest.mark.parametrize(
    "distances",
    [
        range(24),  # a street
        [1.2**i for i in range(24)],  # ever larger steps
        [0.0] * 18 + [5, 6, 7, 8, 9, 10],  # from one place and elsewhere
        [0.01 * i for i in range(16)] + [5, 6, 7, 8, 9, 10],  # two groups
        [0, 1, 100],  # too few to tell
        [3.0] * 8,
        [7.0],
        [],
    ],
)
def test_ordinary_captures_have_none(distances):
    assert not find_outliers(on_line(distances).reshape(-1, 3)).any()


@pytest.mark.parametrize("far", [30, 1e3, 1e9])
def test_few_that_are_far_are_found(far):
    positions = on_line([0, 1, 2, 3, 4, 5, 6, far, -2 * far, 7])
    assert find_outliers(positions).nonzero()[0].tolist() == [7, 8]
    assert find_outliers(1e-6 * positions + 1e3).nonzero()[0].tolist() == [7, 8]


def test_points_far_away_are_skipped(known, tmp_path):
    path = write_moved_capture(tmp_path, known, (0, 0, 0))
    model = pycolmap.Reconstruction(path / "sparse/0")
    for xyz in ([1e6, 0, 0], [0, -1e6, 0]):
        model.add_point3D(np.array(xyz), pycolmap.Track(), np.zeros(3, np.uint8))
    model.write_binary(path / "sparse/0")
    scene = scenes.load(path, progress=False)
    assert torch.equal(scene.points, known.points)
    assert scene.notes == ("skipped 2 points over 100 times as far out as the median",)


def test_far_points_that_are_many_or_alone_are_no_outliers():
    points = np.random.default_rng(0).normal(size=(100, 3))
    assert not find_outlying_points(points).any()
    points[:5] *= 1e5
    assert find_outlying_points(points).sum() == 5
    points[:10] *= 1e5
    assert not find_outlying_points(points).any()
    assert not find_outlying_points(np.zeros((5, 3))).any()
    assert not find_outlying_points(np.zeros((0, 3))).any()
