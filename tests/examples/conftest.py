# A small capture on disk in the DL3DV-Benchmark's layout, and the trainer as a command.
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scenes.cameras import Cameras
from scenes.formats import colmap
from splats.gaussians import from_points
from splats.paths import look_at
from splats.rasterize import rasterize
from tests.conftest import GUARD

ROOT = Path(__file__).parents[2]
DOWN = np.array([0.0, -1.0, 0.0])
COMMAND = "examples.gsplat.simple_trainer_difix3d"


@pytest.fixture(scope="session")
def capture(tmp_path_factory) -> Path:
    """Twelve photos of 192x144 of coloured blobs, their cameras and points."""
    generator = torch.Generator().manual_seed(0)
    points = 0.7 * torch.randn(200, 3, generator=generator)
    colors = torch.rand(200, 3, generator=generator)
    truth = from_points(points, colors, opacity=0.9, scale=0.7, generator=generator)
    angles = torch.linspace(0, 2 * torch.pi, 13)[:-1]
    positions = 4 * torch.stack([angles.cos(), torch.full_like(angles, -0.2), angles.sin()], 1)
    poses = look_at(positions.double().numpy(), points.double().numpy().mean(0), DOWN)
    viewmats = torch.linalg.inv(torch.from_numpy(poses)).float()
    K = torch.tensor([[200.0, 0, 96], [0, 200.0, 72], [0, 0, 1]])
    cameras = Cameras(viewmats, K.repeat(12, 1, 1), torch.tensor([[192, 144]]).repeat(12, 1))
    with torch.no_grad():
        photos = rasterize(truth, cameras).colors.clamp(0, 1)

    folder = tmp_path_factory.mktemp("benchmark") / "0123abcd" / "gaussian_splat"
    (folder / "images").mkdir(parents=True)
    names = [f"frame_{i + 1:05d}.png" for i in range(12)]
    for name, photo in zip(names, photos, strict=True):
        Image.fromarray((photo * 255).round().byte().numpy()).save(folder / "images" / name)
    colmap.write(folder, cameras, names, points, colors)
    return folder


def environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "100", "CUDA_VISIBLE_DEVICES": "", "PYTHON": sys.executable}


def start(*arguments: object) -> subprocess.Popen:
    """The trainer in a process of its own, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def start_trainer():
    """Call it with arguments: a running process."""
    return start


@pytest.fixture
def trainer():
    """Call it with arguments: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        process = start(*arguments)
        out, err = process.communicate(timeout=GUARD)
        return process.returncode, out, err

    return run
