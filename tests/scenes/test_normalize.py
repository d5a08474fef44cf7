import numpy as np
import pytest
import torch

import scenes
from scenes.normalize import (
    compute_mean_pose_normalization,
    transform_points,
    transform_viewmats,
)


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


def looking_at_origin(positions):
    """Poses [N, 4, 4] of level cameras at positions [N, 3] that look at the origin."""
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    for pose, position in zip(poses, positions, strict=True):
        forward = -position / np.linalg.norm(position)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
        pose[:3, 3] = position
    return poses


def test_the_mean_pose_is_the_identity():
    positions = np.array([[3.0, 0.4, -4.0], [3.5, 0.0, -4.2], [2.4, -0.3, -4.4]])
    poses = looking_at_origin(positions)
    viewmats = transform_viewmats(compute_mean_pose_normalization(poses), np.linalg.inv(poses))
    moved = np.linalg.inv(viewmats)
    np.testing.assert_allclose(moved[:, :3, 3].mean(0), 0, atol=1e-12)
    assert np.abs(moved[:, :3, 3]).max() == pytest.approx(1 / 1.35)
    mean = moved[:, :3, 2].mean(0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(moved[:, :3, :3]), 1)


def test_cameras_all_around_have_a_mean_frame():
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    positions = np.stack([3 * np.cos(angles), np.ones(8), 3 * np.sin(angles)], 1)
    level = looking_at_origin(positions * [1, 0, 1])
    for poses in (level, looking_at_origin(positions)):
        similarity = compute_mean_pose_normalization(poses)
        assert np.isfinite(similarity).all()
        unit = similarity[:3, :3] / np.cbrt(np.linalg.det(similarity[:3, :3]))
        np.testing.assert_allclose(unit @ unit.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_cameras_at_one_place_are_refused(offset):
    poses = looking_at_origin(np.array([[1.0, 0.2, -2.0]] * 3))
    poses[:, :3, 3] += offset
    poses[:, :3, 3] = poses[:, :3, 3].astype(np.float32) * np.float32(1 + 1e-7)
    with pytest.raises(ValueError, match="3 cameras are at one place"):
        compute_mean_pose_normalization(poses)
