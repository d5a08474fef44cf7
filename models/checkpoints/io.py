# Checkpoint files as tensors and metadata: read without executing anything, written whole or not
# at all.
from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from runtime.files import atomic_path


def read(path: str | Path) -> tuple[Mapping, dict[str, str]]:
    """A file's content (tensors by name, for a pickle whatever it holds) and its metadata.

    Nothing in the file is executed. Raises FileNotFoundError, and ValueError for a file that is
    damaged, no checkpoint, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except SafetensorError as e:
            raise ValueError(f"{path} is damaged or no safetensors file ({e})") from None
    try:
        # mapped, so that an optimizer state of many GB is not read; the old format cannot be
        mmap = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap), {}
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is no checkpoint, or one with code in it, which is refused: only tensors "
            "and plain values are read"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError) as e:
        reason = str(e).split("\n")[0][:120]
        raise ValueError(f"{path} is truncated or no checkpoint ({reason})") from None


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write safetensors; an older file stays until the new one is complete."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(on_cpu, temporary, metadata=dict(metadata))


def write_pickle(path: str | Path, content: object) -> None:
    """Write with torch.save; an older file stays until the new one is complete."""
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def count_sizes(tensors: list[Tensor]) -> dict[str, int]:
    """How many tensors these are, and how many parameters they hold."""
    return {"tensors": len(tensors), "parameters": sum(t.numel() for t in tensors)}
