# Settings of gsplat's trainer that change a step: batches, visible Gaussians, depths of points.
from dataclasses import replace

import numpy as np
import pytest
import torch

from reconstruction.losses import disparity_difference
from reconstruction.optimizer import find_visible, make_optimizers
from reconstruction.start import initial_splats
from reconstruction.trainer import Trainer
from scenes.scene import Scene
from splats.rasterize import rasterize
from tests.reconstruction.test_optimise import config_of

CPU = torch.device("cpu")


def test_a_batch_is_the_mean_over_its_photos(scene):
    """One step on two photos has the loss of two steps on one each, without an update between."""
    config = config_of("default", random_bkgd=False)
    losses = []
    for batch in (1, 2):
        trainer = Trainer(scene, replace(config, batch_size=batch), CPU)
        if batch == 1:
            for optimizer in trainer.state.optimizers.values():
                optimizer.param_groups[0]["lr"] = 0.0
            trainer.config = replace(trainer.config, means_lr=0.0)
        steps = [trainer.step()[0] for _ in range(2 // batch)]
        losses.append(torch.stack(steps).mean())
    assert torch.allclose(*losses, atol=1e-6)


def test_rates_grow_with_the_root_of_the_batch(scene):
    one, four = (
        make_optimizers(initial_splats(scene, config), config, 1.0)
        for config in (config_of("default", batch_size=n) for n in (1, 4))
    )
    for name in one:
        before, after = one[name].param_groups[0], four[name].param_groups[0]
        assert after["lr"] == pytest.approx(2 * before["lr"])
        assert after["eps"] == pytest.approx(before["eps"] / 2)
        assert after["betas"] == pytest.approx((0.6, 0.996))


def test_visible_adam_leaves_what_is_not_seen_alone(scene):
    config = config_of("default", visible_adam=True, random_bkgd=False)
    splats = initial_splats(scene, config)
    splats["means"].data[:7] += 1e4  # seen by no camera
    optimizers = make_optimizers(splats, config, 1.0)
    before = {name: value.detach().clone() for name, value in splats.items()}
    render = rasterize(splats, scene.cameras[1])
    visible = find_visible([render.info], splats.count)
    assert not visible[:7].any() and visible.any()
    render.colors.square().mean().backward()
    for value in splats.values():
        value.grad = torch.ones_like(value) if value.grad is None else value.grad
    for optimizer in optimizers.values():
        optimizer.step(visible)
    for name, value in splats.items():
        changed = (
            (value.detach() != before[name]).flatten(1).any(1)
            if value.ndim > 1
            else (value.detach() != before[name])
        )
        assert not changed[~visible].any(), name
    first = optimizers["sh0"].param_groups[0]["lr"] * 0.1 / 0.001**0.5
    moved = (splats["sh0"].detach() - before["sh0"]).abs().max()
    assert moved == pytest.approx(first, rel=1e-3)  # no correction of the moments' bias


def with_points(scene: Scene) -> Scene:
    return replace(scene, seen=tuple(np.arange(len(scene.points)) for _ in range(len(scene))))


def test_depths_of_points_are_held_to(scene):
    camera = scene.cameras[3]
    width, height = camera.size
    pose, z = camera.camtoworlds[0], torch.tensor([2.0, 5.0])
    ahead = torch.tensor([[0.1, -0.2, 1.0], [-0.3, 0.1, 1.0]]) * z[:, None]
    points = ahead @ pose[:3, :3].T + pose[:3, 3]
    flat = torch.full((height, width), 4.0)
    wanted = (1 / z - 1 / 4).abs().mean()
    assert disparity_difference(flat, camera, points) == pytest.approx(wanted.item(), abs=1e-5)
    assert disparity_difference(flat, camera, 2 * pose[:3, 3] - points) == 0  # behind the camera
    losses = []
    for weight in (0.0, 1.0):
        config = config_of("default", depth_loss=True, depth_lambda=weight, random_bkgd=False)
        trainer = Trainer(with_points(scene), config, CPU)
        for _ in range(30):
            trainer.step()
        with torch.no_grad():
            depths = rasterize(trainer.state.splats, camera).depths[0]
            losses.append(disparity_difference(depths, camera, scene.points))
    assert losses[1] < 0.9 * losses[0]
    with pytest.raises(ValueError, match="--depth_loss needs the points"):
        Trainer(scene, config_of("default", depth_loss=True), CPU)
