# A slow renderer in plain torch to hold the fast ones to: gsplat's own torch projection and
# harmonics, and a loop over Gaussians for the blending. Differentiable by autograd in any
# precision.
import torch
from gsplat.cuda._torch_impl import (
    _fully_fused_projection,
    _quat_scale_to_covar_preci,
    _spherical_harmonics,
)

from scenes.cameras import Cameras
from splats.gaussians import NAMES, Splats


def random_scene(count=60, width=50, height=37, n_cameras=1, sh_degree=3, seed=0, size=3.0):
    """Splats before (some behind or beside) cameras that look along +z with a small tilt."""
    g = torch.Generator().manual_seed(seed)
    focal = 0.9 * width
    z = torch.rand(count, generator=g) * 4 + 1.5
    u = (torch.rand(count, generator=g) * 1.6 - 0.3) * width
    v = (torch.rand(count, generator=g) * 1.6 - 0.3) * height
    means = torch.stack([(u - width / 2) / focal * z, (v - height / 2) / focal * z, z], -1)
    means[: count // 20, 2] *= -1
    pixels = torch.exp(torch.randn(count, 3, generator=g) * 0.6) * size
    splats = Splats(
        means=means,
        scales=(pixels * z[:, None] / focal).log(),
        quats=torch.randn(count, 4, generator=g),
        opacities=torch.randn(count, generator=g) * 1.5,
        sh0=torch.randn(count, 1, 3, generator=g) * 0.8,
        shN=torch.randn(count, (sh_degree + 1) ** 2 - 1, 3, generator=g) * 0.2,
    )
    viewmats = torch.eye(4).repeat(n_cameras, 1, 1)
    for c in range(n_cameras):
        angle = torch.randn(3, generator=g) * 0.08
        skew = torch.tensor(
            [[0, -angle[2], angle[1]], [angle[2], 0, -angle[0]], [-angle[1], angle[0], 0]]
        )
        viewmats[c, :3, :3] = torch.linalg.matrix_exp(skew)
        viewmats[c, :3, 3] = torch.randn(3, generator=g) * 0.1
    K = torch.tensor([[focal, 0, width * 0.52], [0, focal * 1.1, height * 0.47], [0, 0, 1]])
    sizes = torch.tensor([[width, height]]).repeat(n_cameras, 1)
    return splats, Cameras(viewmats, K.repeat(n_cameras, 1, 1), sizes)


def render(
    raw: dict[str, torch.Tensor],
    cameras: Cameras,
    *,
    sh_degree=3,
    signals=None,
    background=None,
    near=0.01,
    far=1e10,
    eps2d=0.3,
    antialiased=False,
):
    """colors [C,H,W,3 + D], alphas [C,H,W], depth sums [C,H,W], means2d (retains its gradient).

    signals [N,D] or [C,N,D] are D more channels behind the three of colour; background [3 + D].
    """
    like = raw["means"]
    width, height = cameras.size
    viewmats, Ks = cameras.viewmats.to(like), cameras.Ks.to(like)
    covars, _ = _quat_scale_to_covar_preci(raw["quats"], raw["scales"].exp(), True, False)
    radii, means2d, depths, conics, factors = _fully_fused_projection(
        raw["means"], covars, viewmats, Ks, width, height, eps2d, near, far, antialiased
    )
    if means2d.requires_grad:
        means2d.retain_grad()
    opacities = raw["opacities"].sigmoid().expand(len(cameras), -1)
    if antialiased:
        opacities = opacities * factors
    directions = raw["means"] - torch.linalg.inv(viewmats)[:, None, :3, 3]
    coefficients = torch.cat([raw["sh0"], raw["shN"]], 1).expand(len(cameras), -1, -1, -1)
    colors = (_spherical_harmonics(sh_degree, directions, coefficients) + 0.5).clamp(min=0)
    if signals is not None:
        colors = torch.cat([colors, signals.expand(len(cameras), -1, -1)], -1)
    # in the parameters' precision: a number minus an array of float32 would be float32
    places = (torch.arange(size).to(like) + 0.5 for size in (height, width))
    ys, xs = torch.meshgrid(*places, indexing="ij")
    images, alphas, sums = [], [], []
    for c in range(len(cameras)):
        T, alive = torch.ones_like(xs), torch.ones_like(xs, dtype=torch.bool)
        image = torch.zeros(height, width, colors.shape[-1]).to(like)
        depth = torch.zeros(height, width).to(like)
        visible = (radii[c] > 0).all(-1).nonzero()[:, 0]
        for n in visible[depths[c, visible].argsort()]:
            dx, dy = means2d[c, n, 0] - xs, means2d[c, n, 1] - ys
            a, b, e = conics[c, n]
            sigma = 0.5 * (a * dx * dx + e * dy * dy) + b * dx * dy
            alpha = (opacities[c, n] * torch.exp(-sigma)).clamp(max=0.999)
            hit = alive & (alpha >= 1 / 255) & (sigma >= 0)
            alive = alive & ~(hit & (T * (1 - alpha) <= 1e-4))
            weight = torch.where(hit & alive, alpha * T, 0)
            image = image + weight[..., None] * colors[c, n]
            depth = depth + weight * depths[c, n]
            T = T - weight
        if background is not None:
            image = image + T[..., None] * background.to(like)
        images.append(image)
        alphas.append(1 - T)
        sums.append(depth)
    return torch.stack(images), torch.stack(alphas), torch.stack(sums), means2d


def raw_parameters(splats: Splats, dtype=torch.float64) -> dict[str, torch.Tensor]:
    """Leaf copies of the raw parameters in another precision."""
    return {k: splats[k].detach().to(dtype).requires_grad_() for k in NAMES}
