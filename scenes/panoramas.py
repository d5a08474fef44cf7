# Equirectangular photos, which show the whole sphere, become the six perspective views of a cube.
from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np

from runtime.text import format_count
from scenes.capture import Capture, Lens

# Yaw (to the right) and pitch (upwards) of each view in degrees; all are 90 degrees wide and high.
VIEWS = {
    "front": (0.0, 0.0),
    "right": (90.0, 0.0),
    "back": (180.0, 0.0),
    "left": (-90.0, 0.0),
    "up": (0.0, 90.0),
    "down": (0.0, -90.0),
}


def make_panorama_lens(width: int, height: int) -> Lens:
    """The lens of an equirectangular photo, whose middle looks forwards.

    Source: EquirectangularCameraModel of COLMAP; nerfstudio's EQUIRECTANGULAR agrees.
    """
    fx, fy = width / (2 * math.pi), height / math.pi
    K = np.array([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]])
    return Lens(width, height, K, model="EQUIRECTANGULAR")


def compute_turn(yaw: float, pitch: float) -> np.ndarray:
    """The rotation [3, 3] from the panorama's camera to a view's; OpenCV axes, degrees."""
    yaw, pitch = math.radians(yaw), math.radians(pitch)
    c, s = math.cos(yaw), math.sin(yaw)
    about_y = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = math.cos(pitch), math.sin(pitch)
    return np.array([[1, 0, 0], [0, c, s], [0, -s, c]]) @ about_y


def compute_panorama_maps(lens: Lens) -> tuple[Lens, np.ndarray, np.ndarray]:
    """The pinhole lens of one view of a panorama and its maps, as `compute_undistortion`.

    The view has as many pixels a radian in its middle as the panorama has at the horizon.
    """
    size = max(1, round(2 * lens.K[0, 0]))
    maps = _make_maps(lens.width, lens.height, size, *lens.distortion)
    K = np.array([[size / 2, 0, size / 2], [0, size / 2, size / 2], [0, 0, 1]])
    return Lens(size, size, K), *maps


@lru_cache(maxsize=len(VIEWS))
def _make_maps(
    width: int, height: int, size: int, yaw: float, pitch: float
) -> tuple[np.ndarray, np.ndarray]:
    steps = (np.arange(size) + 0.5) / (size / 2) - 1
    x, y = np.meshgrid(steps, steps)
    rays = np.stack([x, y, np.ones_like(x)], -1) @ compute_turn(yaw, pitch)
    azimuth = np.arctan2(rays[..., 0], rays[..., 2])
    elevation = np.arctan2(-rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
    map_x = (0.5 + azimuth / (2 * np.pi)) * width - 0.5  # to OpenCV's pixel centres
    map_y = (0.5 - elevation / np.pi) * height - 0.5
    return map_x.astype(np.float32), map_y.astype(np.float32)


def cut_panoramas(capture: Capture) -> Capture:
    """The capture with VIEWS in the place of each panorama, named NAME_front.jpg and so on."""
    n = sum(lens.model == "EQUIRECTANGULAR" for lens in capture.lenses)
    if not n:
        return capture
    names, photos, lenses, viewmats = [], [], [], []
    for name, lens, viewmat in zip(capture.names, capture.lenses, capture.viewmats, strict=True):
        if lens.model != "EQUIRECTANGULAR":
            names.append(name)
            photos.append(name)
            lenses.append(lens)
            viewmats.append(viewmat)
            continue
        for view, (yaw, pitch) in VIEWS.items():
            path = PurePosixPath(name)
            names.append(str(path.with_name(f"{path.stem}_{view}{path.suffix}")))
            photos.append(name)
            lenses.append(replace(lens, distortion=(yaw, pitch)))
            turned = viewmat.copy()
            turned[:3] = compute_turn(yaw, pitch) @ viewmat[:3]
            viewmats.append(turned)
    order = sorted(range(len(names)), key=names.__getitem__)
    mask_of = capture.masks and dict(zip(capture.names, capture.masks, strict=True))
    split = capture.split and {
        name: capture.split[photo]
        for name, photo in zip(names, photos, strict=True)
        if photo in capture.split
    }
    note = (
        f"{format_count(n, 'panorama')} cut into {len(VIEWS)} views each, 90 degrees wide "
        f"({', '.join(VIEWS)})"
    )
    return replace(
        capture,
        names=tuple(names[i] for i in order),
        photos=tuple(photos[i] for i in order),
        lenses=tuple(lenses[i] for i in order),
        viewmats=np.stack([viewmats[i] for i in order]),
        masks=mask_of and tuple(mask_of[photos[i]] for i in order),
        split=split,
        notes=(*capture.notes, note),
    )
