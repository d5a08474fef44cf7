# Rays and their coordinates.
import torch

from models.layers.patches import patchify, unpatchify
from models.layers.rays import CHANNELS, pixel_rays, plucker


def test_a_ray_meets_its_pixel_again():
    torch.manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(2, 3, 3, dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = q, torch.randn(2, 3, dtype=torch.float64)
    K = torch.tensor([[50.0, 0, 9], [0, 60, 7], [0, 0, 1]], dtype=torch.float64).repeat(2, 1, 1)
    origins, directions = pixel_rays(pose, K, (20, 14))
    assert torch.allclose(directions.norm(dim=1), torch.ones(2, 14, 20, dtype=torch.float64))
    at = origins[..., None, None] + 3 * directions
    local = torch.linalg.inv(pose) @ torch.cat([at, torch.ones_like(at[:, :1])], 1).flatten(2)
    pixels = (K @ local[:, :3]).unflatten(2, (14, 20))
    u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
    assert torch.allclose(u[0, 0], torch.arange(20, dtype=torch.float64) + 0.5)
    assert torch.allclose(v[1, :, 3], torch.arange(14, dtype=torch.float64) + 0.5)


def test_coordinates_do_not_depend_on_the_point_of_the_ray():
    torch.manual_seed(0)
    origins = torch.randn(2, 3, dtype=torch.float64)
    directions = torch.nn.functional.normalize(torch.randn(2, 3, 1, 1, dtype=torch.float64), dim=1)
    moved = origins + 1.7 * directions[..., 0, 0]
    for kind, channels in CHANNELS.items():
        first = plucker(origins, directions, kind)
        assert first.shape == (2, channels, 1, 1)
        assert torch.allclose(first, plucker(moved, directions, kind))


def test_patches_and_back():
    x = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12)
    tokens = patchify(x, 4)
    assert tokens.shape == (2, 6, 48)
    assert torch.equal(tokens[0, 1, :3], x[0, :, 0, 4])  # channels fastest
    assert torch.equal(unpatchify(tokens, (12, 8), 4), x)
