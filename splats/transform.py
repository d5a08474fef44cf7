# Gaussians in a moved world: rotated, scaled and shifted, their harmonics turned along.
from __future__ import annotations

import torch
from torch import Tensor

from splats.gaussians import Gaussians
from splats.harmonics import evaluate_bases

LARGEST_SHEAR = 1e-3


def transform(gaussians: Gaussians, matrix: Tensor) -> Gaussians:
    """The Gaussians after x -> matrix @ x; matrix: [4,4], a rotation, a uniform scale and a shift.

    Signals stay as they are. ValueError for a matrix that shears, mirrors or is singular.
    """
    from scipy.spatial.transform import Rotation

    matrix = matrix.double().cpu()
    linear = matrix[:3, :3]
    volume = float(torch.linalg.det(linear))
    scale = abs(volume) ** (1 / 3)
    shear = (linear @ linear.T / max(scale, 1e-30) ** 2 - torch.eye(3)).abs().max()
    if not volume > 0 or not shear < LARGEST_SHEAR:
        raise ValueError("the matrix is no rotation with a uniform scale and a shift")
    R = linear / scale
    x, y, z, w = Rotation.from_matrix(R.numpy()).as_quat().tolist()
    like = gaussians.means
    product = torch.tensor(
        [[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]], dtype=torch.float64
    )
    means = gaussians.means.double() @ linear.T.to(like.device) + matrix[:3, 3].to(like.device)
    return Gaussians(
        means.to(like),
        gaussians.scales + torch.tensor(scale).log().to(like),
        gaussians.quats @ product.T.to(like),
        gaussians.opacities,
        gaussians.sh0,
        _turn_harmonics(gaussians.shN, R),
        gaussians.signals,
    )


def _turn_harmonics(shN: Tensor, R: Tensor) -> Tensor:
    """Coefficients [N,K,3] of the functions d -> f(R^T d); R: [3,3]."""
    K = shN.shape[1]
    if K == 0:
        return shN
    g = torch.Generator().manual_seed(0)
    d = torch.nn.functional.normalize(torch.randn(256, 3, generator=g, dtype=torch.float64), dim=1)
    turned = torch.linalg.lstsq(*(evaluate_bases(at, 3)[:, 1:] for at in (d, d @ R))).solution[
        :K, :K
    ]
    return torch.einsum("kj,njc->nkc", turned.to(shN), shN)
