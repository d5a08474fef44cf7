# A capture in memory: undistorted photos, their cameras, sparse points and the train/test split.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scenes.cameras import Cameras
from scenes.normalize import transform_points, transform_viewmats
from scenes.outliers import drop_outliers, find_outliers


@dataclass(frozen=True)
class Split:
    """Which views train and which are held out, by index, and the rule that decided it.

    rule: one of gsplat, difix, filename, json, capture, all; text: a sentence about it for users.
    """

    rule: str
    train: tuple[int, ...]
    test: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Scene:
    """A capture, ready for optimisation.

    names: photo names in sorted order, relative to the photo folder.
    images: uint8 [H, W, 3] per view, undistorted, at 1/data_factor of their size; photos with
        alpha are over white.
    points: [P, 3] float32, point_colors: [P, 3] float32 in [0, 1] (P may be 0).
    transform: [4, 4] float64 from the capture's world to this one: a similarity if normalised, a
        shift if the capture lies far from its origin, else the identity.
    notes: what users should know about the capture (missing photos, skipped files).
    needs_points: the capture's format holds points, so that their lack is a user's mistake.
    alphas: uint8 [H, W] per view, or None for an opaque one; None if all are.
    masks: bool [H, W] per view, where the photo counts, or None (everywhere); None if all are.
    seen: int64 [M] per view, the points that structure from motion saw in it; None: not known.
    background: "white" or "black" if the capture's benchmark has cut-out photos on it, else None.
    """

    path: Path
    kind: str
    names: tuple[str, ...]
    cameras: Cameras
    images: tuple[np.ndarray, ...]
    points: Tensor
    point_colors: Tensor
    split: Split
    data_factor: int
    transform: Tensor
    notes: tuple[str, ...] = ()
    needs_points: bool = True
    alphas: tuple[np.ndarray | None, ...] | None = None
    masks: tuple[np.ndarray | None, ...] | None = None
    background: str | None = None
    seen: tuple[np.ndarray, ...] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int, background: Tensor | None = None) -> Tensor:
        """The photo as float32 [H, W, 3] in [0, 1], over a background [3] (default: white)."""
        image, alpha = torch.from_numpy(self.images[index]).float() / 255, self.alpha(index)
        if alpha is None or background is None:
            return image
        return (image + (1 - alpha[..., None]) * (background.to(image) - 1)).clamp(0, 1)

    def alpha(self, index: int) -> Tensor | None:
        """The photo's alpha as float32 [H, W] in [0, 1]; None if it is opaque."""
        alpha = None if self.alphas is None else self.alphas[index]
        return None if alpha is None else torch.from_numpy(alpha).float() / 255

    def mask(self, index: int) -> Tensor | None:
        """Where the photo counts, bool [H, W]; None: everywhere."""
        mask = None if self.masks is None else self.masks[index]
        return None if mask is None else torch.from_numpy(mask)

    @property
    def is_normalized(self) -> bool:
        """Whether `transform` is more than a shift."""
        return not torch.equal(self.transform[:3, :3], torch.eye(3, dtype=torch.float64))

    def in_world(self, transform: Tensor) -> Scene:
        """The same scene in the world to which `transform` [4, 4] leads from the capture's."""
        if torch.equal(transform, self.transform):
            return self
        move = (transform @ torch.linalg.inv(self.transform)).numpy()
        viewmats = transform_viewmats(move, self.cameras.viewmats.double().numpy())
        points = transform_points(move, self.points.double().numpy())
        return replace(
            self,
            cameras=replace(self.cameras, viewmats=torch.from_numpy(viewmats).float()),
            points=torch.from_numpy(points).float(),
            transform=transform,
        )

    @property
    def outliers(self) -> tuple[int, ...]:
        """The views whose cameras lie far from all others (`scenes.outliers`)."""
        outlying = find_outliers(self.cameras.positions.double().numpy())
        return tuple(np.flatnonzero(outlying).tolist())

    def drop_outliers(self, views: Sequence[int]) -> list[int]:
        """The views without outliers; all, if none is left."""
        outliers = set(self.outliers)
        return [view for view in views if view not in outliers] or list(views)

    @property
    def scale(self) -> float:
        """1.1 times the largest distance of a camera from their mean position, as in gsplat.

        Outliers do not count.
        """
        positions = drop_outliers(self.cameras).positions
        return 1.1 * (positions - positions.mean(0)).norm(dim=1).max().item()
