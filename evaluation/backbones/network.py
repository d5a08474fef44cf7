# LPIPS (Zhang et al. 2018) as the package `lpips` computes it, on weights of load_features.
from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evaluation.backbones.features import check_folder, load_features

if TYPE_CHECKING:
    from lpips import LPIPS


def load_lpips(net: str, folder: Path | str | None = None) -> tuple[LPIPS | None, str | None]:
    """The frozen network of LPIPS v0.1 on "alex" or "vgg" and None, or None and why there is none.

    folder: with the backbones' weights, see `load_features`. FileNotFoundError if it has none.
    """
    if folder is not None:
        check_folder(folder)  # whoever names one wants it
    try:
        import lpips
    except ImportError:
        return None, "LPIPS is not available: the Python package lpips is not installed."
    try:
        features = load_features(net, folder)
    except (OSError, ValueError) as error:
        return None, f"LPIPS is not available: {error}"
    # Without the backbone's 138 million random weights, most of them for a classifier.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips 0.1.4 asks torchvision in a way it calls deprecated
        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    heads = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth"
    state = torch.load(heads, map_location="cpu", weights_only=True)
    for name, slice_ in network.net.named_children():
        for key in slice_.state_dict():
            state[f"net.{name}.{key}"] = features[f"features.{key}"]
    _, unexpected = network.load_state_dict(state, strict=False, assign=True)
    empty = [name for name, tensor in network.state_dict().items() if tensor.is_meta]
    if empty or unexpected:
        raise RuntimeError(f"lpips has another layout than 0.1.4: {empty or unexpected}")
    return network.eval().requires_grad_(False), None
