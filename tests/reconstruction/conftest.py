# A tiny capture whose truth is known: photos are renders of coloured blobs, seen from a ring.
from pathlib import Path

import numpy as np
import pytest
import torch

from scenes.cameras import Cameras
from scenes.scene import Scene, Split
from splats.gaussians import from_points
from splats.rasterize import rasterize

WIDTH, HEIGHT, VIEWS = 56, 40, 9


def ring(n: int) -> Cameras:
    """n cameras on a circle of radius 4 that look at the origin."""
    viewmats = torch.eye(4).repeat(n, 1, 1)
    for viewmat, angle in zip(viewmats, torch.linspace(0, 2 * torch.pi, n + 1)[:-1], strict=True):
        position = 4 * torch.stack([angle.cos(), torch.tensor(-0.2), angle.sin()])
        forward = -position / position.norm()
        right = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward)
        right = right / right.norm()
        viewmat[:3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward])
        viewmat[:3, 3] = -viewmat[:3, :3] @ position
    K = torch.tensor([[60.0, 0, WIDTH / 2], [0, 60.0, HEIGHT / 2], [0, 0, 1]])
    return Cameras(viewmats, K.repeat(n, 1, 1), torch.tensor([[WIDTH, HEIGHT]]).repeat(n, 1))


@pytest.fixture(scope="session")
def scene() -> Scene:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(150, 3, generator=generator) * 0.7
    colors = torch.rand(150, 3, generator=generator)
    truth = from_points(points, colors, opacity=0.9, scale=0.7, generator=generator)
    cameras = ring(VIEWS)
    with torch.no_grad():
        renders = rasterize(truth, cameras).colors.clamp(0, 1)
    images = tuple(np.ascontiguousarray((image * 255).round().byte()) for image in renders)
    noisy = points + 0.05 * torch.randn(150, 3, generator=generator)
    return Scene(
        path=Path("blobs"),
        kind="COLMAP",
        names=tuple(f"{i:02d}.png" for i in range(VIEWS)),
        cameras=cameras,
        images=images,
        points=noisy[:80],
        point_colors=torch.full((80, 3), 0.5),
        split=Split("gsplat", (1, 2, 3, 4, 6, 7, 8), (0, 5), "gsplat: two views are held out"),
        data_factor=1,
        transform=torch.eye(4, dtype=torch.float64),
    )
