# A capture whose truth is known, to be written in other formats and read back.
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap
import torch

import scenes
from scenes import Scene, procedural

VIEWS, WIDTH, HEIGHT, POINTS = 24, 200, 150, 10_000


def write_known_capture(root: Path) -> Scene:
    """Write a tabletop of 24 views of 200x150 as a COLMAP capture and load it."""
    procedural.write(
        root, 3, kind="tabletop", n_views=VIEWS, width=WIDTH, height=HEIGHT, points=POINTS,
        path="orbit", progress=False,
    )  # fmt: skip
    return scenes.load(root, progress=False)


def measure_color_error(
    scene: Scene, points: torch.Tensor | None = None, colors: torch.Tensor | None = None
) -> float:
    """Median difference, 0 to 1, of points' colours from the photos' where the cameras see them.

    points [P, 3] and colors [P, 3]: the true ones in the scene's world (default: the scene's own).
    Wrong poses, focal lengths, axes, sizes or names make it several times larger.
    """
    points = scene.points if points is None else points
    colors = scene.point_colors if colors is None else colors
    homogeneous = torch.cat([points.double(), torch.ones(len(points), 1).double()], 1)
    errors = []
    for i in range(len(scene)):
        x, y, z = (scene.cameras.viewmats[i].double() @ homogeneous.T)[:3]
        K = scene.cameras.Ks[i].double()
        u, v = (K[0, 0] * x / z + K[0, 2]).numpy(), (K[1, 1] * y / z + K[1, 2]).numpy()
        height, width = scene.images[i].shape[:2]
        inside = (z.numpy() > 0) & (u > 0) & (u < width) & (v > 0) & (v < height)
        if not inside.any():
            return 1.0
        pixels = scene.image(i).numpy()[v[inside].astype(int), u[inside].astype(int)]
        errors.append(np.abs(pixels - colors.numpy()[inside]).mean(1))
    return float(np.median(np.concatenate(errors)))


def write_moved_capture(
    root: Path, known: Scene, offset: Sequence[float], thrown: Sequence[int] = ()
) -> Path:
    """The known capture, moved by `offset`; the cameras in `thrown` lie far away in it as well."""
    model = pycolmap.Reconstruction(known.path / "sparse/0")
    model.transform(pycolmap.Sim3d(1, pycolmap.Rotation3d(), np.array(offset, np.float64)))
    for rank, index in enumerate(thrown):
        view = next(image for image in model.images.values() if image.name == known.names[index])
        pose = view.cam_from_world()
        pose.translation = pose.translation + 500.0 * (rank + 1)
        view.frame.rig_from_world = pose
    (root / "sparse/0").mkdir(parents=True)
    model.write_binary(root / "sparse/0")
    (root / "images").symlink_to(known.path / "images")
    return root
