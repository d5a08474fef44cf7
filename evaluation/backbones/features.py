# The convolution weights of LPIPS's backbones ("features.*" of torchvision's AlexNet and VGG16),
# from the first of several sources that has them. All of them hold the same numbers.
from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evaluation.backbones import hub

VARIABLE = "LPIPS_BACKBONES"
FILES = {"alex": "alexnet_features.safetensors", "vgg": "vgg16_features.safetensors"}
# SHA-256 of the tensors' bytes, in the order of their names.
DIGESTS = {
    "alex": "276812cc7430109e87ad2847e4409809bf867956c8a5e9621ae88a1bfcb08e76",
    "vgg": "d649de3c8126095cbd4ddf98051ee4c6eb54127548e4623473d5a202c46418fe",
}


def load_features(net: str, folder: Path | str | None = None) -> dict[str, Tensor]:
    """{"features.0.weight": ..., ...} of "alex" or "vgg", float32.

    Sources, in order: torchvision's file in the torch hub's folder; `folder`, else the one that
    the variable LPIPS_BACKBONES names; what `python -m evaluation.backbones fetch` left in the
    torch hub's folder; a download of torchvision's file.
    Raises ValueError for a damaged file, OSError where there is no source. The sentence says what
    to do.
    """
    file = hub.find_file(net)
    if file is not None:
        return _read_hub(file)
    named = folder if folder is not None else os.environ.get(VARIABLE)
    if named is not None:
        place = Path(named) / FILES[net]
        if not place.is_file():
            origin = "--backbones" if folder is not None else VARIABLE
            raise FileNotFoundError(f"{origin} {named} has no {FILES[net]}.")
        return read_features(net, place)
    fetched = hub.find_folder() / FILES[net]
    if fetched.is_file():
        return read_features(net, fetched)
    try:
        return _read_hub(hub.download(net))
    except OSError as error:
        raise OSError(
            f"{error}; run `python -m evaluation.backbones fetch`, put {hub.URLS[net]} into "
            f"{hub.find_folder()}, or name a folder with {FILES[net]} (--backbones or {VARIABLE})."
        ) from None


def check_folder(folder: Path | str) -> None:
    """FileNotFoundError if a folder that a user named holds none of the files."""
    if not any((Path(folder) / name).is_file() for name in FILES.values()):
        raise FileNotFoundError(f"--backbones {folder} has none of {', '.join(FILES.values())}")


def read_features(net: str, file: Path) -> dict[str, Tensor]:
    """The weights in a .safetensors file; ValueError if they are not the published ones."""
    try:
        features = load_file(file)
    except (SafetensorError, OSError):
        raise ValueError(
            f"{file} is not a .safetensors file; delete it and get it again."
        ) from None
    if compute_digest(features) != DIGESTS[net]:
        raise ValueError(
            f"{file} does not hold torchvision's weights (the checksum is wrong); delete it and "
            "get it again."
        )
    return features


def compute_digest(features: dict[str, Tensor]) -> str:
    """SHA-256 of the tensors' bytes, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(features):
        digest.update(features[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read_hub(file: Path) -> dict[str, Tensor]:
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {name: tensor for name, tensor in state.items() if name.startswith("features.")}
