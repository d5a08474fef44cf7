# The CPU's fused kernels of a step and their plain twins.
from copy import deepcopy

import pytest
import torch

from reconstruction.config import mcmc
from reconstruction.densification import perturb, shape_noise
from reconstruction.losses import photometric, photometric_plain
from reconstruction.optimizer import make_optimizers, update
from splats.gaussians import Splats, random_splats


def with_gradient(loss, render, photo, weight):
    render = render.clone().requires_grad_()
    value = loss(render, photo, weight)
    (3 * value).backward()
    return value.detach(), render.grad


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (37, 200)])
@pytest.mark.parametrize("weight", [0.2, 1.0])
def test_the_photometric_loss_is_that_of_l1_and_ssim(size, weight):
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(*size, 3, generator=generator)
    render = (photo + 0.2 * torch.randn(*size, 3, generator=generator)).clamp(0, 1)
    render[:2] = photo[:2]  # where L1 has no slope
    ours = with_gradient(photometric, render, photo, weight)
    plain = with_gradient(photometric_plain, render.double(), photo.double(), weight)
    torch.testing.assert_close(ours[0].double(), plain[0], rtol=1e-5, atol=1e-6)
    assert (ours[1] - plain[1]).abs().max() < 1e-5 * plain[1].abs().max()


def some_splats() -> Splats:
    """More than a block and some, of all kinds of opacity."""
    splats = random_splats(3001, 1.0, generator=torch.Generator().manual_seed(1))
    splats["opacities"].data = torch.linspace(-9, 9, 3001)
    return splats


def test_adam_moves_parameters_however_they_lie_in_memory():
    ours, theirs = some_splats(), some_splats()
    for name in ("means", "shN"):
        turned = ours[name].data.transpose(0, -1).contiguous().transpose(0, -1)
        assert not turned.is_contiguous()
        ours[name].data = turned
    optimizers = make_optimizers(ours, mcmc(), 1.0)
    twins = make_optimizers(theirs, mcmc(), 1.0)
    for _ in range(2):
        for name in ours:
            ours[name].grad = torch.ones_like(ours[name])
            theirs[name].grad = torch.ones_like(theirs[name])
        update(optimizers)
        for twin in twins.values():
            twin.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)


def test_adam_on_all_parameters_at_once_is_torchs():
    ours, theirs = some_splats(), some_splats()
    optimizers = make_optimizers(ours, mcmc(), 1.0)
    twins = make_optimizers(theirs, mcmc(), 1.0)
    for step in range(6):
        if step == 3:  # as a resumed run does
            for name, optimizer in optimizers.items():
                optimizer.load_state_dict(deepcopy(twins[name].state_dict()))
        for name in ours:
            gradient = 10.0 ** -(2 * step) * torch.randn_like(ours[name])
            gradient[::3] = 0
            ours[name].grad, theirs[name].grad = gradient, gradient.clone()
        update(optimizers)
        for twin in twins.values():
            twin.step()
    for name in ours:
        assert ours[name].grad is None
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
        state, twin = optimizers[name].state[ours[name]], twins[name].state[theirs[name]]
        assert set(state) == set(twin) and torch.equal(state["step"], twin["step"])
        torch.testing.assert_close(state["exp_avg"], twin["exp_avg"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(state["exp_avg_sq"], twin["exp_avg_sq"], rtol=1e-5, atol=1e-6)


def test_parameters_without_gradient_stay():
    splats = some_splats()
    optimizers = make_optimizers(splats, mcmc(), 1.0)
    before = {name: value.detach().clone() for name, value in splats.items()}
    splats["means"].grad = torch.ones_like(splats["means"])
    update(optimizers)
    moved = {name for name in splats if not torch.equal(splats[name], before[name])}
    assert moved == {"means"}


def test_fused_noise_is_the_plain_one():
    splats = some_splats()
    before = splats["means"].detach().clone()
    torch.manual_seed(3)
    perturb(splats, 10.0)
    torch.manual_seed(3)
    with torch.no_grad():
        expected = shape_noise(splats, torch.randn(3001, 3), 10.0)
    torch.testing.assert_close(splats["means"] - before, expected, rtol=1e-4, atol=1e-6)
