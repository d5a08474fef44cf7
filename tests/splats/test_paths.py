import numpy as np
import pytest
import torch

from scenes.cameras import Cameras
from splats import paths

CENTER = np.array([1.0, 2.0, 3.0])
UP = np.array([0.0, 0.6, 0.8])


def as_cameras(poses: np.ndarray) -> Cameras:
    n = len(poses)
    K = torch.tensor([[100.0, 0, 64], [0, 100, 48], [0, 0, 1]])
    viewmats = torch.from_numpy(np.linalg.inv(poses)).float()
    return Cameras(viewmats, K.repeat(n, 1, 1), torch.tensor([[128, 96]]).repeat(n, 1))


def orbit(n: int, degrees: float = 360, radii=(4.0, 3.0), height: float = 1.5) -> Cameras:
    """Cameras at even angles on an ellipse, `height` above a plane across UP, looking at CENTER."""
    across = np.linalg.svd(UP[None])[2][1:]
    t = np.linspace(0, np.radians(degrees), n, endpoint=degrees < 360)
    flat = radii[0] * np.cos(t)[:, None] * across[0] + radii[1] * np.sin(t)[:, None] * across[1]
    return as_cameras(paths.look_at(CENTER + height * UP + flat, CENTER, UP))


def line(n: int) -> Cameras:
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, 0, 3] = np.arange(n)
    return as_cameras(poses)


def outward(n: int) -> Cameras:
    """Someone turning round in one place."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    ahead = np.stack([np.cos(t), np.sin(t), 0 * t], axis=1)
    poses = [paths.look_at(0.1 * a[None], 5 * a, np.array([0.0, 0, 1]))[0] for a in ahead]
    return as_cameras(np.stack(poses))


DEGENERATE = {
    "one": line(1),
    "two": line(2),
    "identical": line(1)[[0, 0, 0, 0, 0]],
    "line": line(9),
    "pairs": line(4)[[0, 0, 1, 1, 2, 2, 3, 3]],
    "outward": outward(12),
    "face to face": orbit(3)[[0, 1]],
    "above": as_cameras(paths.look_at(np.array([[0.0, 0, 5], [0, 0, 6]]), np.zeros(3), UP)),
    "rolled": as_cameras(np.stack([np.eye(4), np.diag([-1.0, -1, 1, 1])])),
}


def is_valid(cameras: Cameras) -> bool:
    R = cameras.viewmats[:, :3, :3].double()
    orthonormal = (R @ R.transpose(1, 2) - torch.eye(3)).abs().max() < 1e-5
    bottom = (cameras.viewmats[:, 3] == torch.tensor([0.0, 0, 0, 1])).all()
    finite = cameras.viewmats.isfinite().all()
    return bool(orthonormal and bottom and finite and (torch.linalg.det(R) > 0).all())


def turns(cameras: Cameras) -> torch.Tensor:
    R = cameras.viewmats[:, :3, :3].double()
    cosine = ((R[1:] * R[:-1]).sum((1, 2)) - 1) / 2
    return torch.rad2deg(torch.arccos(cosine.clamp(-1, 1)))


def moves(cameras: Cameras) -> torch.Tensor:
    return cameras.positions.diff(dim=0).norm(dim=1)


@pytest.mark.parametrize("path", [paths.interpolate_path, paths.orbit_path])
@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("n_frames", [1, 2, 40])
def test_any_capture_gives_valid_cameras(path, name, n_frames):
    cameras = path(DEGENERATE[name], n_frames)
    assert len(cameras) == n_frames
    assert is_valid(cameras)


@pytest.mark.parametrize("path", [paths.interpolate_path, paths.orbit_path])
def test_intrinsics_are_the_firsts_or_as_asked(path):
    capture = orbit(8)
    assert path(capture, 5).size == (128, 96)
    assert torch.equal(path(capture, 5).Ks[3], capture.Ks[0])
    wide = path(capture, 5, size=(512, 192))
    assert wide.size == (512, 192)
    assert torch.equal(wide.Ks[0], torch.tensor([[200.0, 0, 256], [0, 200, 96], [0, 0, 1]]))
    assert torch.equal(path(capture, 5, K=torch.eye(3)).Ks[4], torch.eye(3))


def test_interpolated_moves_evenly_and_smoothly():
    path = paths.interpolate_path(orbit(20), 300)
    assert moves(path).max() < 1.5 * moves(path).mean()
    assert turns(path).max() < 1.5 * turns(path).mean()
    bends = path.positions.diff(n=2, dim=0).norm(dim=1)
    assert bends.max() < 0.1 * moves(path).mean()


def test_interpolated_passes_by_its_keyframes():
    capture = orbit(10, degrees=300)
    path = paths.interpolate_path(capture, 400)
    gaps = torch.cdist(capture.positions, path.positions)
    assert gaps.min(dim=1).values.max() < 0.02 * moves(capture).mean()
    forward = path.camtoworlds[gaps.argmin(dim=1), :3, 2]
    cosine = (forward * capture.camtoworlds[:, :3, 2]).sum(1)
    assert torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).max() < 4
    assert torch.allclose(path.positions[[0, -1]], capture.positions[[0, -1]], atol=1e-4)


def test_interpolated_keeps_the_order_of_a_tour_and_sorts_a_jumble():
    capture = orbit(40, degrees=330)
    jumbled = capture[torch.randperm(40, generator=torch.Generator().manual_seed(3)).tolist()]
    own = moves(paths.interpolate_path(capture, 400, keyframes=40)).sum()
    sorted_out = moves(paths.interpolate_path(jumbled, 400, keyframes=40)).sum()
    assert own == pytest.approx(moves(capture).sum().item(), rel=0.02)
    assert sorted_out < 2 * own < moves(jumbled).sum() / 3


def test_ellipse_recovers_an_elliptical_orbit():
    capture = orbit(60, radii=(4, 3), height=1.5)
    path = paths.orbit_path(capture, 200)
    relative = path.positions.double() - torch.from_numpy(CENTER)
    up = torch.from_numpy(UP)
    torch.testing.assert_close(relative @ up, torch.full((200,), 1.5).double(), rtol=0, atol=0.02)
    flat = (relative - (relative @ up)[:, None] * up).norm(dim=1)
    assert flat.max() == pytest.approx(4, rel=0.03)
    assert flat.min() == pytest.approx(3, rel=0.03)
    forward = path.camtoworlds[:, :3, 2].double()
    assert ((-relative / relative.norm(dim=1, keepdim=True) * forward).sum(1) > 0.9999).all()
    assert (-path.camtoworlds[:, :3, 1].double() @ up > 0.8).all()
    closing = (path.positions[0] - path.positions[-1]).norm()
    assert closing < 1.5 * moves(path).mean()
    assert moves(path).max() < 1.5 * moves(path).mean()


def test_ellipse_does_not_go_behind_what_was_photographed():
    capture = orbit(20, degrees=90, radii=(4, 4))
    path = paths.orbit_path(capture, 100)
    nearest = torch.cdist(path.positions, capture.positions).min(dim=1).values
    assert nearest.max() < 0.3
    assert moves(path).max() < 0.3


def test_looked_at_is_where_the_axes_meet():
    torch.testing.assert_close(
        paths.estimate_focus(orbit(7)).double(), torch.from_numpy(CENTER), rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        paths.estimate_up(orbit(9)).double(), torch.from_numpy(UP), rtol=0, atol=1e-2
    )


def test_no_camera_or_frame_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        paths.orbit_path(line(3), 0)
    with pytest.raises(ValueError, match="at least one"):
        paths.interpolate_path(line(3)[[]], 4)
