# The relative pose that Zero123 and ArchonView are conditioned on: three angles' numbers and a
# distance.
import torch
from torch import Tensor


def measure_spherical(w2c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Polar angle from +z, azimuth and distance [...] of cameras, whose world-to-camera matrices
    are [...,3,4]; on the z axis the azimuth is 0."""
    centers = -(w2c[..., :3].mT @ w2c[..., 3:])[..., 0]
    x, y, z = centers.unbind(-1)
    flat = torch.hypot(x, y)
    azimuth = torch.where(flat > 0, torch.atan2(y, x), torch.zeros_like(x))
    return torch.atan2(flat, z), azimuth, centers.norm(dim=-1)


def relative_pose(source: Tensor, target: Tensor) -> Tensor:
    """[...,4] float32 of world-to-camera matrices [...,3,4]: difference of the polar angles in
    radians, sine and cosine of that of the azimuths, difference of the distances.

    In-plane rotation and where the cameras look are not part of it. Computed in the matrices' own
    type, float64 at best. ValueError for another shape."""
    for matrices in (source, target):
        if matrices.shape[-2:] != (3, 4):
            raise ValueError(f"a pose is [3,4], world to camera, not {list(matrices.shape[-2:])}")
    (polar_s, azimuth_s, radius_s), (polar_t, azimuth_t, radius_t) = map(
        measure_spherical, (source, target)
    )
    turn = azimuth_t - azimuth_s
    parts = (polar_t - polar_s, turn.sin(), turn.cos(), radius_t - radius_s)
    return torch.stack(parts, -1).float()
