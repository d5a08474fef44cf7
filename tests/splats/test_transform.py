import pytest
import torch
from scipy.spatial.transform import Rotation

from scenes.cameras import Cameras
from splats.gaussians import NAMES
from splats.rasterize import rasterize
from splats.transform import transform
from tests.splats.reference import random_scene


def similarity(seed: int = 0) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = 1.7 * torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    matrix[:3, 3] = torch.tensor([0.5, -2.0, 1.0])
    return matrix


def test_a_moved_world_looks_the_same_to_moved_cameras():
    splats, cameras = random_scene(sh_degree=3)
    matrix = similarity()
    moved = transform(splats.gaussians.detach(), matrix)
    viewmats = cameras.viewmats.double() @ torch.linalg.inv(matrix)
    viewmats[:, :3] *= 1.7  # a camera has no scale of its own
    there = Cameras(viewmats.float(), cameras.Ks, cameras.sizes)
    before = rasterize(splats.gaussians.detach(), cameras).colors
    assert (rasterize(moved, there).colors - before).abs().max() < 1e-3
    assert before.std() > 0.05


def test_the_inverse_brings_values_back():
    splats, _ = random_scene(sh_degree=2)
    matrix = similarity(3)
    there = transform(splats.gaussians.detach(), matrix)
    back = transform(there, torch.linalg.inv(matrix))
    for name in NAMES:
        a, b = getattr(back, name), splats[name].detach()
        if name == "quats":
            a, b = a * (a * b).sum(1, keepdim=True).sign(), b
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("diagonal", [(1, 1, -1), (1, 2, 1), (0, 0, 0), (float("nan"), 1, 1)])
def test_mirrors_and_shears_are_refused(diagonal):
    splats, _ = random_scene(count=20)
    matrix = torch.diag(torch.tensor([*diagonal, 1.0]))
    with pytest.raises(ValueError, match="no rotation with a uniform scale"):
        transform(splats.gaussians.detach(), matrix)
