# The world in which a scene's splats live: normalised, or the capture's own, shifted to its cameras
# if it lies so far from its origin that float32 is too coarse there (UTM, ECEF, a site's metres).
from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from scenes.normalize import (
    compute_gsplat_normalization,
    compute_normalization,
    transform_points,
    transform_viewmats,
)
from scenes.outliers import describe_outliers, find_outliers

if TYPE_CHECKING:
    from scenes.scene import Scene

# The coarsest steps of float32 where the cameras are, in units of their median distance from their
# middle: a hundredth of a pixel at a focal length of 1,000 pixels.
COARSEST = 1e-5
SNAPPED = 1e-3  # the same for numbers that were stored as float32: a pixel


def choose_frame(
    names: tuple[str, ...], viewmats: np.ndarray, points: np.ndarray, normalize: bool
) -> tuple[np.ndarray, list[str]]:
    """The transform [4, 4] float64 from the capture's world to the scene's, and notes about it.

    viewmats [N, 4, 4] and points [P, 3] are the capture's, float64.
    """
    camtoworlds = np.linalg.inv(viewmats)
    positions = camtoworlds[:, :3, 3]
    notes = []
    shift = compute_shift(positions)
    transform = compute_normalization(camtoworlds, points) if normalize else shift
    if shift[:3, 3].any():
        offset = ", ".join(f"{value:.12g}" for value in 0.0 - shift[:3, 3])
        frame = "in the normalised world" if normalize else "relative to that place"
        notes.append(
            f"the capture lies around ({offset}), where float32 has steps of "
            f"{measure_step(positions):.2g} units; its splats and cameras are {frame}. The "
            'inverse of "transform" in cameras.json (of gen_data: in done.json) brings them back'
        )
    spread = measure_spread(positions)
    for what, coordinates in (("poses", positions), ("points", points)):
        if len(coordinates) and is_snapped(coordinates, spread):
            notes.append(
                f"the capture's {what} were rounded to float32, in steps of up to "
                f"{measure_step(coordinates):.2g} units here; export them in double precision, or "
                "relative to a local origin"
            )
    outliers = describe_outliers(names, positions)
    if outliers:
        notes.append(outliers)
    return transform, notes


def list_worlds(scene: Scene) -> dict[str, Tensor]:
    """The worlds in which splats of a capture usually lie, by name: the transforms [4, 4] float64
    to them from the capture's world."""
    to_capture = np.linalg.inv(scene.transform.numpy())
    viewmats = transform_viewmats(to_capture, scene.cameras.viewmats.double().numpy())
    points = transform_points(to_capture, scene.points.double().numpy())
    poses = np.linalg.inv(viewmats)
    worlds = {
        "the capture's own world": compute_shift(poses[:, :3, 3]),
        "the normalised world": compute_normalization(poses, points),
        "the world as gsplat normalises it": compute_gsplat_normalization(poses, points),
    }
    return {name: torch.from_numpy(world) for name, world in worlds.items()}


def compute_shift(positions: np.ndarray) -> np.ndarray:
    """[4, 4] translation that brings cameras at positions [N, 3] near the origin.

    The identity if float32 can hold them where they are, to COARSEST. Otherwise by whole numbers,
    or round decimals if the cameras are within less than one unit.
    """
    near, spread = positions[~find_outliers(positions)], measure_spread(positions)
    shift = np.eye(4)
    if measure_step(near) > COARSEST * spread:
        digits = max(0, -int(np.floor(np.log10(spread))))
        shift[:3, 3] = 0.0 - near.mean(0).round(digits)
    return shift


def measure_spread(positions: np.ndarray) -> float:
    """The median distance of cameras at positions [N, 3] from their middle; 1 if they share one."""
    near = positions[~find_outliers(positions)]
    spread = float(np.median(np.linalg.norm(near - near.mean(0), axis=1)))
    return spread if spread > 1e-12 * np.abs(near).max() else 1.0


def measure_step(coordinates: np.ndarray) -> float:
    """The distance of neighbouring float32 numbers around the median of the largest coordinates."""
    return float(np.spacing(np.float32(np.median(np.abs(coordinates).max(-1)))))


def is_snapped(coordinates: np.ndarray, spread: float) -> bool:
    """Whether coordinates [P, 3] are float32 numbers where those are coarse for cameras of this
    spread, as if they had been stored so."""
    if measure_step(coordinates) <= SNAPPED * spread:
        return False
    rounded = coordinates.astype(np.float32)
    return bool((np.abs(rounded - coordinates) <= 1e-3 * np.spacing(np.abs(rounded))).all())
