# Checkpoints of other trainers in the layout of gsplat's: their names appear only here.
from __future__ import annotations

from typing import Any

from torch import Tensor

from splats.gaussians import NAMES

# GaussianModel.capture() of Inria's trainer, saved beside the iteration: the active SH degree, then
INRIA = ("means", "sh0", "shN", "scales", "quats", "opacities")
INRIA_LENGTHS = (11, 12)  # with the optimizer's state and, in most versions, the scene's extent
# splatfacto's state dict: gauss_params.means (since 1.0.3 of nerfstudio), or means
NERFSTUDIO = {
    "means": "means",
    "scales": "scales",
    "quats": "quats",
    "opacities": "opacities",
    "features_dc": "sh0",
    "features_rest": "shN",
}


def translate(content: Any) -> Any:
    """The content of a checkpoint in gsplat's layout, {"step", "splats"}; others unchanged."""
    if isinstance(content, tuple) and len(content) == 2 and isinstance(content[0], tuple):
        return _from_inria(*content)
    if isinstance(content, dict) and isinstance(content.get("pipeline"), dict):
        return _from_nerfstudio(content)
    if isinstance(content, dict) and all(name in content for name in NAMES):  # bare parameters
        return {"step": 0, "splats": content}
    return content


def _from_inria(values: tuple, iteration: Any) -> Any:
    if len(values) not in INRIA_LENGTHS:
        return None
    splats = dict(zip(INRIA, values[1:7], strict=True))
    step = iteration - 1 if isinstance(iteration, int) and iteration > 0 else 0
    return {"step": step, "splats": splats}


def _from_nerfstudio(content: dict) -> Any:
    state = content["pipeline"]
    splats = {}
    for theirs, ours in NERFSTUDIO.items():
        for name in (f"_model.gauss_params.{theirs}", f"_model.{theirs}"):
            value = state.get(name, state.get(name.replace("_model.", "_model.module.", 1)))
            if value is not None:
                splats[ours] = value
    sh0 = splats.get("sh0")
    if isinstance(sh0, Tensor) and sh0.ndim == 2:
        splats["sh0"] = sh0[:, None]
    return {"step": content.get("step", 0), "splats": splats} if splats else None
