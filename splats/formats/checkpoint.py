# Splats as gsplat's checkpoints: {"step": int, "splats": {means, scales, quats, opacities, sh0,
# shN}} of raw parameters in a .pt file. Other keys (optimizer state, poses) are passed through.
# Those of Inria's trainer (chkpnt30000.pth) and of nerfstudio's splatfacto (.ckpt) are read too.
from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runtime import pickles
from runtime.files import atomic_path
from splats.formats.finite import THICKNESS, THIN, fill_rotations
from splats.formats.foreign import translate
from splats.gaussians import NAMES, Splats

log = logging.getLogger(__name__)

NO_SPLATS = (
    "is not a checkpoint of splats: it holds no 'splats'; give one of gsplat, Inria's trainer or "
    "nerfstudio's splatfacto"
)


def write(path: Path | str, splats: Splats, step: int, **extra: Any) -> None:
    """Write a checkpoint after `step` (counted from zero), atomically; signals are not written.

    `extra` adds top-level keys: tensors, numbers, strings, and lists and dicts of them.
    """
    values = {name: splats[name].detach().cpu().clone() for name in NAMES}
    with atomic_path(path) as temporary:
        torch.save({"step": int(step), "splats": values, **extra}, temporary)


def read(path: Path | str) -> tuple[Splats, int]:
    """Splats and the step at which they were saved, on the CPU.

    ValueError names the file and what is wrong: code in the pickle, truncated, not a checkpoint,
    wrong keys, shapes or values.
    """
    return parse(path, load(path))


def load(path: Path | str) -> dict[str, Any]:
    """All of a checkpoint's keys, on the CPU, without running code from it; errors as in `read`.

    Another trainer's checkpoint comes in the layout of gsplat's.
    """
    path = Path(path)
    content = translate(pickles.load(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path} {NO_SPLATS}")
    return content


def parse(path: Path | str, checkpoint: dict[str, Any]) -> tuple[Splats, int]:
    """Splats and step of what `load` returned; errors as in `read`, naming `path`."""
    values = checkpoint.get("splats")
    if not isinstance(values, dict):
        raise ValueError(f"{path} {NO_SPLATS}")
    missing = [name for name in NAMES if name not in values]
    if missing == ["sh0", "shN"] and {"features", "colors"} <= values.keys():
        raise ValueError(
            f"{path} has no harmonics: a network computes its colours (gsplat's --app_opt); train "
            "it without"
        )
    if missing:
        raise ValueError(f"{path} is not a checkpoint of splats: no {', '.join(missing)} in it")
    step = checkpoint.get("step", 0)
    if isinstance(step, Tensor) and step.numel() == 1 and not step.is_floating_point():
        step = int(step)
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    if not isinstance(step, int) or step < 0:
        raise ValueError(
            f"{path}: 'step' is {str(step)[:40]!r}, not a number of steps; save it as an integer"
        )

    size = Path(path).stat().st_size
    for name in NAMES:
        value = values[name]
        if not (
            isinstance(value, Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
            and value.is_floating_point()
            and value.ndim > 0
            and value.numel() * value.element_size() <= size  # strides can pretend to more
        ):
            raise ValueError(f"{path}: {name} is not a tensor of numbers")
    splats = {name: values[name].detach() for name in NAMES}
    if splats["means"].shape[:1] == (0,):
        raise ValueError(f"{path} has no Gaussians; it holds an empty scene")
    if splats["opacities"].ndim == 2 and splats["opacities"].shape[1] == 1:  # an older layout
        splats["opacities"] = splats["opacities"][:, 0]
    n = len(splats["means"])
    if splats["scales"].shape == (n, 2):
        thickness = splats["scales"].new_full((n, 1), THIN)
        splats["scales"] = torch.cat([splats["scales"], thickness], dim=1)
        log.info("%s: these are 2D Gaussians; they become %s thick", path, THICKNESS)
    if splats["shN"].ndim == 3 and splats["shN"].shape[1] > 15:
        degree = math.isqrt(splats["shN"].shape[1] + 1) - 1
        raise ValueError(
            f"{path} has harmonics of degree {degree}; save it with degree 3 or less (shN[:, :15])"
        )
    for name, value in splats.items():
        bad = value.numel() - int(value.isfinite().sum())
        if bad:
            raise ValueError(
                f"{path}: {bad:,} of {value.numel():,} values of {name} are NaN or infinite; "
                "use an earlier checkpoint"
            )
    try:
        if splats["quats"].shape == (n, 4):
            splats["quats"] = fill_rotations(path, splats["quats"])
        return Splats(**splats), step
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
