# Small captures that the tests of this room build for themselves.
from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

SHARED_SCENES = Path(__file__).resolve().parents[3] / "shared" / "scenes"


def camera_ring(n: int, radius: float = 4.0) -> np.ndarray:
    """Viewmats [n, 4, 4] of cameras on an arc that look at the origin; y is down."""
    viewmats = []
    for angle in np.linspace(-0.6, 0.6, n):
        position = radius * np.array([np.sin(angle), -0.2, -np.cos(angle)])
        z = -position / np.linalg.norm(position)
        x = np.cross([0.0, 1.0, 0.0], z)
        x /= np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        viewmat = np.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = R, -R @ position
        viewmats.append(viewmat)
    return np.stack(viewmats)


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture, uint8 [height, width, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def colmap_model(
    names: list[str],
    cameras: list[tuple[str, int, int, list[float]]] | None = None,
    camera_of: list[int] | None = None,
    n_points: int = 20,
) -> pycolmap.Reconstruction:
    """A model with views on a ring; cameras are (model, width, height, params)."""
    cameras = cameras or [("PINHOLE", 64, 48, [60.0, 61.0, 32.0, 24.0])]
    camera_of = camera_of or [0] * len(names)
    model = pycolmap.Reconstruction()
    for i, (kind, width, height, params) in enumerate(cameras):
        model.add_camera_with_trivial_rig(
            pycolmap.Camera(model=kind, width=width, height=height, params=params, camera_id=i + 1)
        )
    for i, (name, viewmat) in enumerate(zip(names, camera_ring(len(names)), strict=True)):
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=name, camera_id=camera_of[i] + 1, image_id=i + 1),
            pycolmap.Rigid3d(viewmat[:3]),
        )
    rng = np.random.default_rng(1)
    for xyz in rng.normal(0, 0.5, (n_points, 3)):
        model.add_point3D(xyz, pycolmap.Track(), rng.integers(0, 256, 3, dtype=np.uint8))
    return model


def write_capture(
    root: Path,
    names: list[str] | None = None,
    *,
    model_folder: str = "sparse/0",
    photo_folder: str = "images",
    text: bool = False,
    **model_options,
) -> list[str]:
    """Photos and a COLMAP model below `root`; returns the photos' names."""
    names = names or [f"{i:03d}.png" for i in range(8)]
    model = colmap_model(names, **model_options)
    (root / model_folder).mkdir(parents=True, exist_ok=True)
    (model.write_text if text else model.write_binary)(root / model_folder)
    for image in model.images.values():
        file = root / photo_folder / image.name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = photo(image.camera.width, image.camera.height, image.image_id)
        Image.fromarray(pixels).save(file)
    return names
