# Which frames train, by strategy, and what they start from.
from dataclasses import replace

import pytest
import torch

from gen_data.dense_points import sample_dense_points
from gen_data.strategies import Strategy
from scenes import load
from scenes.procedural import generate


def test_underfitting_trains_on_everything():
    strategy = Strategy("underfitting")
    assert strategy.folder == "gs_recon"
    assert strategy.split(7, "a").train == tuple(range(7))
    assert strategy.split(7, "a").test == ()


@pytest.mark.parametrize("name", ["sparse", "noise"])
def test_every_nth_frame_trains_and_the_others_are_rendered(name):
    split = Strategy(name, train_every=10).split(25, "a")
    assert split.train == (0, 10, 20)
    assert split.test == tuple(i for i in range(25) if i % 10)


def test_folders_tell_runs_apart():
    assert Strategy("sparse", 40).folder == "gs_recon_sparse_40"
    assert Strategy("random", seed=3).folder == "gs_recon_random_3"
    assert Strategy("noise", 10, "dense").folder == "gs_recon_noise_dense_10"
    assert Strategy("cross", half=2).folder == "gs_recon_cross_2"


def test_random_draws_5_to_20_percent_by_seed_and_scene():
    shares = [len(Strategy("random", seed=s).split(200, "a").train) / 200 for s in range(40)]
    assert 0.05 <= min(shares) < 0.08 and 0.17 < max(shares) <= 0.2
    strategy = Strategy("random", seed=1)
    assert strategy.split(200, "a") == strategy.split(200, "a")
    assert strategy.split(200, "a") != strategy.split(200, "b")
    assert strategy.split(200, "a") != Strategy("random", seed=2).split(200, "a")
    assert len(strategy.split(5, "a").train) == 2


def test_cross_trains_on_one_half_of_the_path():
    assert Strategy("cross", half=1).split(5, "a").train == (0, 1, 2)
    assert Strategy("cross", half=1).split(5, "a").test == (3, 4)
    assert Strategy("cross", half=2).split(5, "a").train == (3, 4)


def test_a_split_without_frames_to_render_is_refused():
    with pytest.raises(ValueError, match="--train_every 1 leaves no frame"):
        Strategy("sparse", 1).split(9, "a")
    with pytest.raises(ValueError, match="leaves no frame of 2"):
        Strategy("random").split(2, "a")


def test_dense_points_lie_near_the_surface_and_have_its_colours(captures):
    capture = captures[0]
    scene = load(capture, split="all", progress=False)
    points, colors = sample_dense_points(scene, 500, seed=1)
    assert points.shape == colors.shape == (500, 3)
    again = sample_dense_points(scene, 500, seed=1)[0]
    assert torch.equal(points, again) and not torch.equal(
        points, sample_dense_points(scene, 500, 2)[0]
    )
    # Seen again by the first view, the points it made lie at about the place's exact depth.
    camera = scene.cameras[0]
    image, depth = (x[0] for x in generate(int(capture.name)).render(camera))
    count = -(-500 // len(scene))
    local = points[:count] @ camera.viewmats[0, :3, :3].T + camera.viewmats[0, :3, 3]
    u, v = ((local @ camera.Ks[0].T)[:, :2] / local[:, 2:]).floor().long().T
    relative = (local[:, 2] / depth[v, u] - 1).abs()
    assert relative.median() < 0.1
    assert (colors[:count] - image[v, u]).abs().max() < 0.01


def test_dense_points_need_points(captures):
    scene = load(captures[0], split="all", progress=False)
    empty = replace(scene, points=torch.zeros(0, 3), point_colors=torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"too few points.*--noise_start random"):
        sample_dense_points(empty, 100, 0)
