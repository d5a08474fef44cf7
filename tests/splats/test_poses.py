import pytest
import torch

from scenes.cameras import Cameras
from splats.gaussians import NAMES
from splats.rasterize import rasterize
from tests.splats.reference import random_scene, raw_parameters, render
from tests.splats.torch_gsplat import torch_gsplat  # noqa: F401  a fixture


def move(cameras: Cameras, twists: torch.Tensor) -> Cameras:
    """Cameras turned and shifted in their own frames by twists [C, 6], a rigid motion."""
    x, y, z = twists[:, :3].unbind(1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    generators = torch.cat([skew, twists[:, 3:, None]], 2)
    generators = torch.cat([generators, torch.zeros_like(generators[:, :1])], 1)
    viewmats = torch.linalg.matrix_exp(generators) @ cameras.viewmats.to(twists)
    return Cameras(viewmats, cameras.Ks, cameras.sizes)


@pytest.mark.parametrize("backend", ["cpu", "gsplat"])
@pytest.mark.parametrize("options", [{}, {"antialiased": True, "sh_degree": 1}])
def test_gradients_of_poses_match_a_float64_renderer(torch_gsplat, backend, options):  # noqa: F811
    splats, cameras = random_scene(n_cameras=2, seed=3)
    raw = raw_parameters(splats)
    g = torch.Generator().manual_seed(5)
    twists = 0.03 * torch.randn(2, 6, generator=g)
    ours, theirs = (twists.clone().to(d).requires_grad_() for d in (torch.float32, torch.float64))
    picture = rasterize(splats, move(cameras, ours), backend=backend, **options)
    colors, alphas, sums, _ = render(raw, move(cameras, theirs), **options)
    shown = (alphas > 0.05).detach()  # the expected depth's slope explodes where alpha is 0
    depths = sums / alphas.clamp(min=1e-10)
    weights = [torch.randn(t.shape, generator=g) for t in (colors, alphas, depths)]
    weights[2] = weights[2] * shown
    pairs = (
        (ours, (picture.colors, picture.alphas, picture.depths)),
        (theirs, (colors, alphas, depths)),
    )
    for _, pictures in pairs:
        loss = sum((p * w.to(p)).sum() for p, w in zip(pictures, weights, strict=True))
        loss.backward()
    assert (ours.grad - theirs.grad).abs().max() < 2e-3 * theirs.grad.abs().max()
    for name in NAMES:
        wanted, given = raw[name].grad, splats[name].grad
        if wanted is not None:
            assert (given - wanted).abs().max() < 2e-3 * wanted.abs().max(), name


def test_pictures_do_not_depend_on_whether_poses_are_followed():
    splats, cameras = random_scene(n_cameras=2, seed=4)
    follow = Cameras(cameras.viewmats.clone().requires_grad_(), cameras.Ks, cameras.sizes)
    with torch.no_grad():
        plain = rasterize(splats, cameras)
    followed = rasterize(splats, follow)
    assert torch.equal(plain.alphas, followed.alphas)
    assert torch.equal(plain.depths, followed.depths)
    assert (plain.colors - followed.colors).abs().max() < 1e-5
