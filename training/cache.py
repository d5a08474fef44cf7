# What frozen networks made of training windows, kept on disk.
from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from runtime.files import atomic_path


def fingerprint(module: nn.Module, *settings: object, without: tuple[str, ...] = ()) -> str:
    """A short name for a module's weights (but those whose names begin with one of `without`), its
    config if it has one, and some settings."""
    # a config tells what no weight does: which views see each other, say
    told = (getattr(module, "config", None), *settings)
    digest = hashlib.blake2b(repr(told).encode(), digest_size=8)
    for name, tensor in module.state_dict().items():
        if name.startswith(without):
            continue
        flat = tensor.detach().double().flatten()
        # two sums tell weights apart well enough and cost nothing
        sums = flat.sum().item(), (flat * torch.arange(len(flat), device=flat.device)).sum().item()
        digest.update(f"{name} {tuple(tensor.shape)} {sums}".encode())
    return digest.hexdigest()


class Cache:
    """Tensors of samples by name, a file each, below a folder of their own `kind`."""

    def __init__(self, folder: Path, kind: str):
        self.folder = folder / kind

    def __call__(
        self, names: Sequence[str], make: Callable[[list[int]], Tensor], device: torch.device
    ) -> Tensor:
        """The tensors of these samples [B,...]; `make` computes those (by index) that are not
        there, and they are written. Raises OSError naming a file that cannot be."""
        found = [self._read(name) for name in names]
        lacking = [i for i, tensor in enumerate(found) if tensor is None]
        if lacking:
            for i, tensor in zip(lacking, make(lacking).cpu(), strict=True):
                found[i] = tensor
                self._write(names[i], tensor)
        return torch.stack(found).to(device)

    def _file(self, name: str) -> Path:
        digest = hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _write(self, name: str, tensor: Tensor) -> None:
        file = self._file(name)
        try:
            with atomic_path(file) as temporary:
                save_file({"x": tensor.contiguous()}, temporary)
        except SafetensorError as error:  # how its writer tells a full disk
            raise OSError(
                errno.ENOSPC, f"could not be written to --cache_dir ({error})", str(file)
            ) from None

    def _read(self, name: str) -> Tensor | None:
        file = self._file(name)
        try:
            return load_file(file)["x"] if file.exists() else None
        except (SafetensorError, KeyError):  # damaged: made anew
            return None
