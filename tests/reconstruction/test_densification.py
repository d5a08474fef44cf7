import math

import pytest
import torch
from gsplat.cuda._torch_impl import _quat_scale_to_covar_preci

from reconstruction.config import mcmc
from reconstruction.densification import MAX_COPIES, TorchMCMCStrategy, perturb, relocate
from reconstruction.optimizer import make_optimizers
from scenes.cameras import Cameras
from splats.gaussians import Splats, random_splats
from splats.rasterize import rasterize


def equation_9(opacity: float, scale: float, n: int) -> tuple[float, float]:
    """As printed in arXiv 2404.09591, term by term."""
    new = 1 - (1 - opacity) ** (1 / n)
    terms = (
        math.comb(i - 1, k) * (-1) ** k * new ** (k + 1) / math.sqrt(k + 1)
        for i in range(1, n + 1)
        for k in range(i)
    )
    return new, scale * opacity / math.fsum(terms)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, MAX_COPIES])
@pytest.mark.parametrize("opacity", [0.005, 0.3, 0.9, 0.999])
def test_relocation_is_the_papers_equation(opacity, n):
    new, scales = relocate(
        torch.tensor([opacity], dtype=torch.float64),
        torch.tensor([[0.1, 0.2, 3.0]], dtype=torch.float64),
        torch.tensor([n]),
    )
    expected = [equation_9(opacity, scale, n) for scale in (0.1, 0.2, 3.0)]
    assert new.item() == pytest.approx(expected[0][0], rel=1e-9)
    assert scales[0].tolist() == pytest.approx([scale for _, scale in expected], rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_relocated_copies_keep_the_light_along_a_line(n):
    """The integral of n blended copies across a line is that of the original: eq. 9's purpose."""
    opacity, scale = torch.tensor([0.8]).double(), torch.ones(1, 3).double()
    new, scales = relocate(opacity, scale, torch.tensor([n]))
    x = torch.linspace(-20, 20, 40_001, dtype=torch.float64)
    copies = 1 - (1 - new * torch.exp(-0.5 * (x / scales[0, 0]) ** 2)) ** n
    original = opacity * torch.exp(-0.5 * x**2)
    torch.testing.assert_close(torch.trapezoid(copies, x), torch.trapezoid(original, x))


def test_copies_beyond_the_limit_and_opaque_ones_stay_finite():
    new, scales = relocate(torch.ones(2), torch.ones(2, 3), torch.tensor([2, 1000]))
    assert new.isfinite().all() and scales.isfinite().all() and (scales > 0).all()


def coincident(opacity: float, n: int) -> Splats:
    """n equal Gaussians at the origin, sharing what one of `opacity` showed."""
    new, scales = relocate(torch.tensor([opacity]), torch.full((1, 3), 0.3), torch.tensor([n]))
    return Splats(
        means=torch.zeros(n, 3),
        scales=scales.log().repeat(n, 1),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1),
        opacities=new.logit().repeat(n),
        sh0=torch.ones(n, 1, 3),
        shN=torch.zeros(n, 0, 3),
    )


@pytest.mark.parametrize("n", [2, 4, 9])
def test_rendering_coincident_copies_keeps_the_opacity_at_their_centre(n):
    viewmat = torch.eye(4)
    viewmat[2, 3] = 4.0
    K = torch.tensor([[40.0, 0, 16.5], [0, 40.0, 16.5], [0, 0, 1]])
    camera = Cameras(viewmat[None], K[None], torch.tensor([[33, 33]]))
    with torch.no_grad():
        centre = rasterize(coincident(0.7, n), camera).alphas[0, 16, 16].item()
    assert centre == pytest.approx(0.7, abs=2e-3)


def test_noise_has_the_shape_of_each_gaussian():
    generator = torch.Generator().manual_seed(1)
    splats = random_splats(50, 1.0, generator=generator)
    with torch.no_grad():
        splats["opacities"][:25] = 8.0  # opaque ones hardly move
        splats["opacities"][25:] = -8.0
        splats["scales"] += 0.5 * torch.randn(50, 3, generator=generator)
    before = splats["means"].detach().clone()
    torch.manual_seed(3)
    perturb(splats, 10.0)
    torch.manual_seed(3)
    noise = torch.randn(50, 3)
    covars, _ = _quat_scale_to_covar_preci(splats["quats"], splats["scales"].exp())
    gate = 1 / (1 + torch.exp(-100 * (1 - splats["opacities"].sigmoid() - 0.995)))
    expected = torch.einsum("nij,nj->ni", covars, noise * gate[:, None] * 10)
    torch.testing.assert_close(splats["means"] - before, expected, rtol=1e-4, atol=1e-6)
    assert (splats["means"] - before)[:25].abs().max() < 1e-9


def test_dead_gaussians_move_onto_live_ones_and_the_number_grows_to_the_cap():
    splats = random_splats(200, 1.0, opacity=0.5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        splats["opacities"][:20] = -9.0
    optimizers = make_optimizers(splats, mcmc(), 1.0)
    sum(value.sum() for value in splats.values()).backward()
    for optimizer in optimizers.values():
        optimizer.step()
    strategy = TorchMCMCStrategy(cap_max=208, refine_start_iter=0, refine_every=1)
    strategy.check_sanity(splats, optimizers)
    live = splats["means"].detach()[20:].clone()
    torch.manual_seed(0)
    strategy.step_post_backward(splats, optimizers, strategy.initialize_state(), 1, {}, lr=0.0)
    assert splats.count == 208
    for mean in splats["means"].detach()[:20]:
        assert (live - mean).abs().sum(1).min() == 0
    assert (splats["opacities"].sigmoid() > strategy.min_opacity).all()
    for name, optimizer in optimizers.items():
        state = optimizer.state[splats[name]]
        assert state["exp_avg"].shape == splats[name].shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="gsplat's kernel needs CUDA")
def test_relocation_agrees_with_gsplats_kernel():
    from gsplat.relocation import compute_relocation

    generator = torch.Generator().manual_seed(0)
    opacities = torch.rand(100, generator=generator) * 0.9 + 0.05
    scales = torch.rand(100, 3, generator=generator) + 0.1
    copies = torch.randint(1, 10, (100,), generator=generator)
    binoms = TorchMCMCStrategy().initialize_state()["binoms"]
    theirs = compute_relocation(*(t.cuda() for t in (opacities, scales, copies, binoms)))
    for ours, other in zip(relocate(opacities, scales, copies), theirs, strict=True):
        torch.testing.assert_close(ours, other.cpu(), rtol=1e-3, atol=1e-5)
