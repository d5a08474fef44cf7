# What frozen networks compute of training samples, on disk.
from __future__ import annotations

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
    # a config says what no weight does: which views see each other, say
    described = (getattr(module, "config", None), *settings)
    digest = hashlib.blake2b(repr(described).encode(), digest_size=8)
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
        self, names: Sequence[str], compute: Callable[[list[int]], Tensor], device: torch.device
    ) -> Tensor:
        """The tensors of these samples [B,...]; `compute` is called with the indices of those that
        are not there, and they are written. Raises OSError naming a file that cannot be."""
        tensors = [self._read(name) for name in names]
        missing = [i for i, tensor in enumerate(tensors) if tensor is None]
        if missing:
            for i, tensor in zip(missing, compute(missing).cpu(), strict=True):
                tensors[i] = tensor
                self._write(names[i], tensor)
        return torch.stack(tensors).to(device)

    def _file(self, name: str) -> Path:
        digest = hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
        return self.folder / digest[:2] / f"{digest}.safetensors"

    def _write(self, name: str, tensor: Tensor) -> None:
        file = self._file(name)
        try:
            with atomic_path(file) as temporary:
                save_file({"x": tensor.contiguous()}, temporary)
        except OSError as error:
            raise OSError(
                error.errno, f"could not be written to --cache_dir ({error})", str(file)
            ) from None

    def _read(self, name: str) -> Tensor | None:
        file = self._file(name)
        try:
            return load_file(file)["x"] if file.exists() else None
        except (SafetensorError, KeyError):  # damaged: computed again
            return None
