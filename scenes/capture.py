# The result of a reader of one format: lenses, poses and points, before any photo is decoded.
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from runtime.text import format_count

FEWEST_VIEWS = 3
LARGEST = 1e12  # larger coordinates are errors; products of smaller ones are finite in float32
NOT_FINITE = f"that are not finite or beyond {LARGEST:g}"


@dataclass(frozen=True)
class Lens:
    """The intrinsics of one view, as the capture states them.

    K: [3, 3] float64 in pixels of a width x height photo, pixel centres at half-integers. It may
        have a skew, K[0, 1].
    distortion: OpenCV's order; k1 k2 p1 p2 [k3 [k4 k5 k6]] of its polynomial or rational model, or
        k1 k2 k3 k4 of its fisheye model if `fisheye`. Empty or zeros: a pinhole (unless `fisheye`).
    model: empty for OpenCV's models. BROWN: k1 k2 p1 p2 k3 k4, where k4 belongs to r^8, as in
        Metashape and nerfstudio. EQUIRECTANGULAR: a panorama of the whole sphere, K[0, 0] pixels a
        radian, from which `scenes.panoramas` cuts the view whose yaw and pitch in degrees
        `distortion` is. Else the name of a camera model of COLMAP whose parameters after fx, fy,
        cx, cy are `distortion`.
    """

    width: int
    height: int
    K: np.ndarray
    distortion: tuple[float, ...] = ()
    fisheye: bool = False
    model: str = ""

    @property
    def is_pinhole(self) -> bool:
        """Whether photos need no undistortion."""
        plain = self.model in ("", "BROWN") and not self.fisheye
        return plain and not any(self.distortion) and self.K[0, 1] == 0

    @property
    def key(self) -> tuple:
        """The values that decide its undistortion, to be compared and hashed."""
        size = (self.width, self.height)
        return *size, self.K.tobytes(), self.distortion, self.fisheye, self.model

    def resized(self, width: int, height: int) -> Lens:
        """The same lens on a photo of another resolution."""
        K = self.K.copy()
        K[0] *= width / self.width
        K[1] *= height / self.height
        return replace(self, width=width, height=height, K=K)


@dataclass(frozen=True)
class Capture:
    """Poses and points of a capture; view i is the photo `photo_folder / names[i]`.

    viewmats: [N, 4, 4] float64, world to camera, OpenCV axes.
    points: [P, 3] float64, colors: [P, 3] float32 in [0, 1].
    needs_points: the format holds points, so that a capture without any is a user's mistake.
    masks: the file of each photo's mask, where the format names them (else see `scenes.masks`).
    background: "white" or "black", the colour on which the capture's benchmark shows photos with
        alpha; None if it does not say.
    split: "train" or "test" by name, if the capture states which views are held out; others are
        unused.
    seen: the indices of the points that each view saw, if the capture says.
    photos: the photos' names, if they are not those of the views (a panorama has several).
    """

    kind: str
    photo_folder: Path
    names: tuple[str, ...]
    lenses: tuple[Lens, ...]
    viewmats: np.ndarray
    points: np.ndarray
    colors: np.ndarray
    notes: tuple[str, ...] = ()
    needs_points: bool = True
    masks: tuple[Path | None, ...] | None = None
    background: str | None = None
    split: dict[str, str] | None = None
    photos: tuple[str, ...] | None = None
    seen: list[np.ndarray] | None = None


def make_no_points() -> tuple[np.ndarray, np.ndarray]:
    """Points [0, 3] float64 and colours [0, 3] float32 of a capture without any."""
    return np.zeros((0, 3)), np.zeros((0, 3), np.float32)


def check_poses(viewmats: np.ndarray, names: tuple[str, ...] | list[str], file: Path) -> None:
    """Raise ValueError, naming the photo, unless every pose [N, 4, 4] is finite in float32."""
    for name, viewmat in zip(names, viewmats, strict=True):
        if not (np.abs(viewmat) < LARGEST).all():
            raise ValueError(f"{file}: the pose of {name} has values {NOT_FINITE}")


def check_lens(lens: Lens, what: str) -> Lens:
    """The lens itself; ValueError that starts with `what` if no camera can have it."""
    fx, fy = lens.K[0, 0], lens.K[1, 1]
    if not (0 < lens.width <= 1_000_000 and 0 < lens.height <= 1_000_000):
        raise ValueError(f"{what} has the image size {lens.width:g}x{lens.height:g}")
    if not np.isfinite(lens.K).all() or not np.isfinite(lens.distortion).all():
        raise ValueError(f"{what} has intrinsics that are not finite")
    longest = max(lens.width, lens.height)
    if not (1e-2 * longest < fx < 1e4 * longest and 1e-2 * longest < fy < 1e4 * longest):
        raise ValueError(
            f"{what} has the focal length {fx:g} x {fy:g} pixels, which no camera with photos of "
            f"{lens.width}x{lens.height} has"
        )
    if not (abs(lens.K[0, 2]) < 10 * longest and abs(lens.K[1, 2]) < 10 * longest):
        raise ValueError(f"{what} has its principal point far outside the photo")
    return lens


def check_view_count(n: int, noun: str, path: Path, kind: str = "", remedy: str = "") -> None:
    """ValueError if a capture has too few photos or views (`noun`) for a reconstruction."""
    if n < FEWEST_VIEWS:
        few = f"only {format_count(n, noun)}" if n else f"no {noun}s"
        text = f"{path} has {few}{kind}; at least {FEWEST_VIEWS} are needed"
        raise ValueError(f"{text} ({remedy})" if remedy else text)
