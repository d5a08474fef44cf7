# Pinhole cameras in OpenCV axes (x right, y down, z forward), used everywhere in the project.
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """N pinhole cameras; pixel centres lie at half-integers, as in COLMAP and gsplat.

    viewmats: [N, 4, 4] float32, world to camera.
    Ks: [N, 3, 3] float32, in pixels of the image in hand.
    sizes: [N, 2] int64, (width, height) of each view.
    """

    viewmats: Tensor
    Ks: Tensor
    sizes: Tensor

    def __post_init__(self) -> None:
        n = len(self.viewmats)
        if self.viewmats.shape != (n, 4, 4) or self.Ks.shape != (n, 3, 3):
            raise ValueError(
                f"cameras need [N,4,4] and [N,3,3], got {tuple(self.viewmats.shape)} "
                f"and {tuple(self.Ks.shape)}"
            )
        if self.sizes.shape != (n, 2):
            raise ValueError(f"camera sizes need [N,2], got {tuple(self.sizes.shape)}")

    def __len__(self) -> int:
        return len(self.viewmats)

    def __getitem__(self, index) -> Cameras:
        """The cameras at an index, slice or tensor; an int gives a batch of one."""
        if isinstance(index, int):
            index = [index]
        return Cameras(self.viewmats[index], self.Ks[index], self.sizes[index])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) shared by all views; ValueError if they differ."""
        width, height = self.sizes[0].tolist()
        if (self.sizes != self.sizes[0]).any():
            raise ValueError("these cameras have different image sizes; render them one by one")
        return width, height

    @property
    def camtoworlds(self) -> Tensor:
        """[N, 4, 4] camera to world, inverted in float64."""
        return torch.linalg.inv(self.viewmats.double()).to(self.viewmats.dtype)

    @property
    def positions(self) -> Tensor:
        """[N, 3] optical centres in the world."""
        R, t = self.viewmats[:, :3, :3], self.viewmats[:, :3, 3]
        return -(R.transpose(1, 2) @ t[:, :, None])[:, :, 0]

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras with viewmats and Ks on another device; sizes stay on the CPU."""
        return Cameras(self.viewmats.to(device), self.Ks.to(device), self.sizes)

    def scaled(self, factor: float) -> Cameras:
        """The same views at `factor` times the resolution; sizes are rounded, at least 1 pixel."""
        sizes = (self.sizes * factor).round().clamp(min=1).long()
        Ks = self.Ks.clone()
        Ks[:, :2] *= (sizes / self.sizes).to(Ks)[:, :, None]
        return Cameras(self.viewmats, Ks, sizes)

    @classmethod
    def concatenate(cls, parts: list[Cameras]) -> Cameras:
        """All cameras of the parts, in order."""
        return cls(
            *(torch.cat([getattr(p, k) for p in parts]) for k in ("viewmats", "Ks", "sizes"))
        )
