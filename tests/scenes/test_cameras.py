import pytest
import torch

from scenes.cameras import Cameras


def two_cameras():
    viewmats = torch.eye(4).repeat(2, 1, 1)
    viewmats[1, :3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    viewmats[1, :3, 3] = torch.tensor([1.0, 2, 3])
    K = torch.tensor([[100.0, 0, 33], [0, 90, 20], [0, 0, 1]])
    return Cameras(viewmats, K.repeat(2, 1, 1), torch.tensor([[64, 48], [64, 48]]))


def test_positions_are_where_the_view_maps_to_the_origin():
    cameras = two_cameras()
    homogeneous = torch.cat([cameras.positions, torch.ones(2, 1)], 1)
    seen = torch.einsum("nij,nj->ni", cameras.viewmats, homogeneous)
    torch.testing.assert_close(seen[:, :3], torch.zeros(2, 3))
    torch.testing.assert_close(cameras.camtoworlds[:, :3, 3], cameras.positions)


def test_scaling_keeps_what_a_pixel_sees():
    cameras = two_cameras()
    half = cameras.scaled(0.5)
    assert half.size == (32, 24)
    point = torch.tensor([0.3, -0.1, 2.0])
    for small, large in zip(half.Ks, cameras.Ks, strict=True):
        torch.testing.assert_close((small @ point / 2)[:2] * 2, (large @ point / 2)[:2])
    odd = Cameras(cameras.viewmats, cameras.Ks, torch.tensor([[65, 49], [65, 49]])).scaled(0.5)
    torch.testing.assert_close(odd.Ks[0, 0, 0], torch.tensor(100.0 * 32 / 65))


def test_choosing_and_joining():
    cameras = two_cameras()
    assert len(cameras[1]) == 1 and torch.equal(cameras[1].viewmats[0], cameras.viewmats[1])
    assert torch.equal(Cameras.concatenate([cameras[0], cameras[1]]).viewmats, cameras.viewmats)


def test_different_sizes_have_no_common_one():
    cameras = two_cameras()
    mixed = Cameras.concatenate([cameras[0], cameras[1].scaled(2)])
    with pytest.raises(ValueError, match="different image sizes"):
        _ = mixed.size
    with pytest.raises(ValueError, match=r"\[N,4,4\]"):
        Cameras(cameras.viewmats[0], cameras.Ks, cameras.sizes)
