# The Gaussians: one container of raw parameters, as gsplat stores them, and two initialisations.
from __future__ import annotations

import math

import torch
from scipy.spatial import cKDTree
from torch import Tensor

SH_C0 = 0.28209479177387814  # Y_00, the constant spherical harmonic

NAMES = ("means", "scales", "quats", "opacities", "sh0", "shN")


class Splats(torch.nn.ParameterDict):
    """N Gaussians as raw, trainable parameters; usable wherever gsplat wants its `params`.

    means [N,3], scales [N,3] log, quats [N,4] wxyz unnormalised, opacities [N] logit,
    sh0 [N,1,3], shN [N,K,3] with K = (degree + 1)^2 - 1. Colour = SH + 0.5.
    """

    def __init__(
        self,
        means: Tensor,
        scales: Tensor,
        quats: Tensor,
        opacities: Tensor,
        sh0: Tensor,
        shN: Tensor,
    ) -> None:
        n = len(means)
        K = shN.shape[1] if shN.ndim == 3 else -1
        expected = {
            "means": (n, 3),
            "scales": (n, 3),
            "quats": (n, 4),
            "opacities": (n,),
            "sh0": (n, 1, 3),
            "shN": (n, K, 3),
        }
        values = dict(zip(NAMES, (means, scales, quats, opacities, sh0, shN), strict=True))
        for name, shape in expected.items():
            if values[name].shape != shape:
                raise ValueError(
                    f"splats need {name} of shape {shape}, got {tuple(values[name].shape)}"
                )
        if K not in (0, 3, 8, 15):
            raise ValueError(f"shN holds {K} coefficients; degrees 0 to 3 have 0, 3, 8 or 15")
        super().__init__({k: torch.nn.Parameter(v.detach().float()) for k, v in values.items()})

    @property
    def count(self) -> int:
        """N, the number of Gaussians."""
        return len(self["means"])

    @property
    def sh_degree(self) -> int:
        return math.isqrt(self["shN"].shape[1] + 1) - 1

    @property
    def colors(self) -> Tensor:
        """SH coefficients [N, 1 + K, 3]."""
        return torch.cat([self["sh0"], self["shN"]], dim=1)

    def with_sh_degree(self, degree: int) -> Splats:
        """A copy of another degree: coefficients are cut off, or zeros appended."""
        K = (degree + 1) ** 2 - 1
        old = self["shN"].detach()
        shN = old.new_zeros(self.count, K, 3)
        keep = min(K, old.shape[1])
        shN[:, :keep] = old[:, :keep]
        return Splats(**{k: (shN if k == "shN" else self[k].detach().clone()) for k in NAMES})


def from_points(
    points: Tensor,
    colors: Tensor,
    *,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> Splats:
    """Isotropic splats at points [P,3] with colors [P,3] in [0,1].

    Their scale is the root mean square distance to the 3 nearest neighbours, times `scale`.
    ValueError for fewer than 4 points.
    """
    if len(points) < 4:
        raise ValueError(
            f"{len(points)} points are too few to start splats from; use --init_type random"
        )
    distances = cKDTree(points.double().numpy()).query(points.double().numpy(), k=4)[0][:, 1:]
    spacing = torch.from_numpy(distances).square().mean(1).sqrt().float().clamp(min=1e-7)
    n = len(points)
    shN = torch.zeros(n, (sh_degree + 1) ** 2 - 1, 3)
    return Splats(
        means=points.float().clone(),
        scales=(spacing * scale).log()[:, None].repeat(1, 3),
        quats=torch.rand(n, 4, generator=generator),
        opacities=torch.logit(torch.full((n,), opacity)),
        sh0=((colors.float() - 0.5) / SH_C0)[:, None],
        shN=shN,
    )


def random_splats(
    count: int,
    extent: float,
    *,
    center: Tensor | None = None,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> Splats:
    """`count` splats of random colour, uniform in the cube [-extent, extent]^3 around `center`."""
    points = extent * (torch.rand(count, 3, generator=generator) * 2 - 1)
    if center is not None:
        points = points + center
    colors = torch.rand(count, 3, generator=generator)
    return from_points(
        points, colors, sh_degree=sh_degree, opacity=opacity, scale=scale, generator=generator
    )
