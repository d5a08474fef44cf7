# Values of splats that other programs write and no renderer can compute with: infinite logits of an
# opacity of exactly 0 or 1, logarithms of a scale of 0, NaN.
from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from splats.gaussians import Splats

log = logging.getLogger(__name__)

# An opacity of 1 - 1e-6 instead of 1 renders the same: the blending stops at 0.999. Its gradient,
# unlike that of a logit above 17, is not rounded to zero, so that an optimisation can change it.
LARGEST_LOGIT = math.log((1 - 1e-6) / 1e-6)  # 13.8
THICKNESS = 1e-6  # of a flat Gaussian, such as those of 2DGS, in world units
THIN = math.log(THICKNESS)


def build(path: Path | str, values: Mapping[str, Tensor]) -> Splats:
    """Splats of the tensors in `values`, by the names of `Splats`, all of them finite.

    Quaternions of length zero become the identity, infinite opacities become -13.8 and
    13.8, scales of -inf become log(1e-6), and Gaussians with other values that are not finite are
    left out; a warning names `path` and their number.
    ValueError if there are no Gaussians, or none that is finite.
    """
    values = {name: value.float() for name, value in values.items()}
    n = len(values["means"])
    if n == 0:
        raise ValueError(f"{path} has no Gaussians; it holds an empty scene")
    values["quats"] = fill_rotations(path, values["quats"])
    if all(value.sum(dtype=torch.float64).isfinite() for value in values.values()):
        return Splats(**values)  # a NaN or an infinity would have made a sum one

    opacities, scales = values["opacities"], values["scales"]
    values["opacities"] = torch.where(
        opacities.isinf(), opacities.sign() * LARGEST_LOGIT, opacities
    )
    values["scales"] = torch.where(scales.isneginf(), THIN, scales)
    good = torch.stack([value.reshape(n, -1).isfinite().all(1) for value in values.values()]).all(0)
    bad = n - int(good.sum())
    if bad == n:
        raise ValueError(
            f"{path}: all {n:,} Gaussians have NaN or infinite values and are damaged; "
            "export the file again"
        )
    if bad:
        log.warning(
            "%s: %s of %s Gaussians have NaN or infinite values and are left out",
            path,
            f"{bad:,}",
            f"{n:,}",
        )
        values = {name: value[good] for name, value in values.items()}
    return Splats(**values)


def fill_rotations(path: Path | str, quats: Tensor) -> Tensor:
    """The quaternions [N,4] with the identity for those of length zero; a warning counts them."""
    zero = (quats == 0).all(dim=1)
    if zero.any():
        log.warning(
            "%s: %s of %s Gaussians have no rotation (a quaternion of zeros); they are not rotated",
            path,
            f"{int(zero.sum()):,}",
            f"{len(quats):,}",
        )
        quats = torch.where(zero[:, None], quats.new_tensor([1.0, 0.0, 0.0, 0.0]), quats)
    return quats
