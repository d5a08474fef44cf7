# Checkpoint files as tensors and metadata: read without executing anything, written whole or not
# at all.
from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from runtime import pickles
from runtime.files import atomic_path

log = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


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
    content, removed = unwrap(read_whole(path))
    if removed:
        log.info("%s: its weights are read without the %s around them", path, " and ".join(removed))
    return content, {}


def read_whole(path: Path) -> object:
    """What a pickle holds, with everything around its weights. Raises ValueError as `read`."""
    return pickles.load(path, mmap=True)


def unwrap(content: object) -> tuple[object, list[str]]:
    """What training scripts put around weights taken away: outer dicts (WRAPPERS) and, in names of
    tensors, PREFIXES; and a list of what it was."""
    removed = []
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        inner = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = content[inner[0]]
        removed.append(f'"{inner[0]}"')

    def clean(part: object) -> object:
        if not isinstance(part, Mapping):
            return part
        cleaned = {}
        for name, value in part.items():
            if isinstance(value, Tensor) and isinstance(name, str):
                for prefix in PREFIXES:
                    if f".{prefix}" in f".{name}":
                        name = f".{name}".replace(f".{prefix}", ".")[1:]
                        removed.append(prefix.removesuffix("."))
            cleaned[name] = clean(value)
        return cleaned

    return clean(content), list(dict.fromkeys(removed))


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
