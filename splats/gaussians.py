# Gaussians as raw tensors in gsplat's parametrization (3D Gaussian Splatting, Kerbl et al. 2023),
# the same as trainable parameters, and two ways to initialize them.
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

SH_C0 = 0.28209479177387814  # Y_00, the constant spherical harmonic

NAMES = ("means", "scales", "quats", "opacities", "sh0", "shN")


@dataclass(frozen=True, eq=False)
class Gaussians:
    """N Gaussians as tensors of any floating dtype; gradients flow through all of them.

    means: [N, 3], in world units.
    scales: [N, 3], logarithms of the standard deviations along the own axes.
    quats: [N, 4], rotations (w, x, y, z), of any length.
    opacities: [N], logits.
    sh0: [N, 1, 3] and shN: [N, K, 3] with K = (degree + 1)^2 - 1; colour = harmonics + 0.5.
    signals: [N, D] each, further values per Gaussian, by name; D may differ from name to name.

    ValueError names the tensor whose shape, dtype or device does not fit.
    """

    means: Tensor
    scales: Tensor
    quats: Tensor
    opacities: Tensor
    sh0: Tensor
    shN: Tensor
    signals: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.means) if self.means.ndim else -1
        K = self.shN.shape[1] if self.shN.ndim == 3 else -1
        shapes = ((n, 3), (n, 3), (n, 4), (n,), (n, 1, 3), (n, K, 3))
        for name, shape in zip(NAMES, shapes, strict=True):
            _check_tensor(name, getattr(self, name), shape, self.means.device)
        if K not in (0, 3, 8, 15):
            raise ValueError(f"shN holds {K} coefficients; degrees 0 to 3 have 0, 3, 8 or 15")
        for name, signal in self.signals.items():
            if name in NAMES:
                raise ValueError(f"a signal cannot be named {name!r}; Gaussians have this already")
            D = signal.shape[1] if signal.ndim == 2 else -1
            _check_tensor(f"the signal {name}", signal, (n, D), self.means.device)

    def __len__(self) -> int:
        return len(self.means)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Gaussians:
        """The Gaussians at an index, slice, list or mask, in the graph; an int gives one."""
        if isinstance(index, int):
            index = [index]
        return self._map(lambda value: value[index])

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self.shN.shape[1] + 1) - 1

    @property
    def colors(self) -> Tensor:
        """SH coefficients [N, 1 + K, 3]."""
        return torch.cat([self.sh0, self.shN], dim=1)

    def with_sh_degree(self, degree: int) -> Gaussians:
        """The same Gaussians with another SH degree: coefficients cut off, or zeros appended."""
        missing = (degree + 1) ** 2 - 1 - self.shN.shape[1]
        shN = torch.nn.functional.pad(self.shN, (0, 0, 0, missing))  # a negative number cuts off
        return Gaussians(*(getattr(self, name) for name in NAMES[:-1]), shN, self.signals)

    def to(self, *args: torch.device | torch.dtype | str) -> Gaussians:
        """All tensors on another device or in another dtype, as `Tensor.to`; in the graph."""
        return self._map(lambda value: value.to(*args))

    def detach(self) -> Gaussians:
        """The same values outside of the graph."""
        return self._map(Tensor.detach)

    @classmethod
    def concatenate(cls, parts: Sequence[Gaussians]) -> Gaussians:
        """All Gaussians of the parts in order, with the highest of their SH degrees.

        ValueError if there are no parts or if their signals differ by name.
        """
        if not parts:
            raise ValueError("there are no Gaussians to concatenate")
        if any(part.signals.keys() != parts[0].signals.keys() for part in parts):
            names = sorted({", ".join(part.signals) or "none" for part in parts})
            raise ValueError(f"the parts have different signals ({'; '.join(names)})")
        degree = max(part.sh_degree for part in parts)
        parts = [part.with_sh_degree(degree) for part in parts]
        return cls(
            *(torch.cat([getattr(part, name) for part in parts]) for name in NAMES),
            {name: torch.cat([part.signals[name] for part in parts]) for name in parts[0].signals},
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> Gaussians:
        return Gaussians(
            *(change(getattr(self, name)) for name in NAMES),
            {name: change(signal) for name, signal in self.signals.items()},
        )


def _check_tensor(name: str, value: Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if value.shape != shape:
        text = str(shape).replace("-1", "D")
        raise ValueError(f"splats need {name} of shape {text}, got {tuple(value.shape)}")
    if not value.is_floating_point():
        raise ValueError(f"splats need {name} as floating point numbers, got {value.dtype}")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}, but means is on {device}")


class Splats(torch.nn.ParameterDict):
    """N Gaussians as trainable float32 parameters, usable wherever gsplat wants its `params`.

    Keys, shapes and ValueErrors are those of `Gaussians`, whose signals become parameters of their
    own names. The parameters share memory with float32 tensors that are passed in, not their graph.
    """

    def __init__(
        self,
        means: Tensor,
        scales: Tensor,
        quats: Tensor,
        opacities: Tensor,
        sh0: Tensor,
        shN: Tensor,
        signals: Mapping[str, Tensor] | None = None,
    ) -> None:
        Gaussians(means, scales, quats, opacities, sh0, shN, signals or {})  # checks them
        tensors = (means, scales, quats, opacities, sh0, shN)
        values = {**dict(zip(NAMES, tensors, strict=True)), **(signals or {})}
        super().__init__({k: torch.nn.Parameter(v.detach().float()) for k, v in values.items()})

    @classmethod
    def from_gaussians(cls, gaussians: Gaussians) -> Splats:
        """A trainable copy, outside of the Gaussians' graph."""
        copy = gaussians.detach()._map(torch.clone)
        return cls(*(getattr(copy, name) for name in NAMES), copy.signals)

    @property
    def gaussians(self) -> Gaussians:
        """The parameters themselves, in the graph."""
        signals = {name: self[name] for name in self if name not in NAMES}
        return Gaussians(*(self[name] for name in NAMES), signals)

    @property
    def count(self) -> int:
        """N, the number of Gaussians."""
        return len(self["means"])

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return math.isqrt(self["shN"].shape[1] + 1) - 1

    @property
    def colors(self) -> Tensor:
        """SH coefficients [N, 1 + K, 3], in the graph."""
        return torch.cat([self["sh0"], self["shN"]], dim=1)

    def with_sh_degree(self, degree: int) -> Splats:
        """A copy with another SH degree: coefficients are cut off, or zeros appended."""
        return Splats.from_gaussians(self.gaussians.with_sh_degree(degree))


def from_points(
    points: Tensor,
    colors: Tensor,
    *,
    sh_degree: int = 3,
    opacity: float = 0.1,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
) -> Splats:
    """Isotropic splats at points [P,3] with colors [P,3] in [0,1] and random rotations.

    Their scale is the root mean square distance to the 3 nearest neighbours, times `scale`.
    ValueError for fewer than 4 points.
    """
    from scipy.spatial import cKDTree

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
    """`count` splats of random colour, uniform in the cube [-extent, extent]^3 around `center`.

    ValueError for fewer than 4.
    """
    points = extent * (torch.rand(count, 3, generator=generator) * 2 - 1)
    if center is not None:
        points = points + center
    colors = torch.rand(count, 3, generator=generator)
    return from_points(
        points, colors, sh_degree=sh_degree, opacity=opacity, scale=scale, generator=generator
    )
