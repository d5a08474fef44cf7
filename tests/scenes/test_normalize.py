import numpy as np
import torch

import scenes
from scenes.normalize import transform_points


def test_the_world_moves_as_one(capture):
    before = scenes.load(capture, progress=False)
    after = scenes.load(capture, normalize=True, progress=False)
    assert torch.equal(before.transform, torch.eye(4, dtype=torch.float64))

    # one similarity for points and cameras
    moved = transform_points(after.transform.numpy(), before.points.double().numpy())
    assert np.allclose(moved, after.points, atol=1e-5)
    positions = transform_points(after.transform.numpy(), before.cameras.positions.double().numpy())
    assert np.allclose(positions, after.cameras.positions, atol=1e-5)
    # rotations stay rotations, and every point keeps its pixel
    R = after.cameras.viewmats[:, :3, :3]
    assert torch.allclose(R @ R.transpose(1, 2), torch.eye(3).expand(8, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(R), torch.ones(8), atol=1e-5)
    assert torch.allclose(pixels(before), pixels(after), atol=1e-2)


def pixels(scene):
    cameras = scene.cameras
    at = torch.einsum("nij,pj->npi", cameras.viewmats[:, :3, :3], scene.points)
    at = torch.einsum("nij,npj->npi", cameras.Ks, at + cameras.viewmats[:, None, :3, 3])
    return at[..., :2] / at[..., 2:]


def test_centre_and_size_without_points(capture):
    (capture / "sparse/0/points3D.bin").unlink()
    scene = scenes.load(capture, normalize=True, progress=False)
    up = -scene.cameras.viewmats[:, 1, :3].mean(0)
    assert torch.nn.functional.normalize(up, dim=0)[2] > 0.999
    assert abs(np.median(scene.cameras.positions.norm(dim=1)) - 1) < 1e-5
