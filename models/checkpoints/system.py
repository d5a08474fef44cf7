# What checkpoints need to know of a system, and the layout of our own files: safetensors whose
# metadata hold the format's name and the config as JSON.
from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.checkpoints.io import count_sizes, write_pickle, write_tensors


class Adapter(Protocol):
    """Another project's files of a system (its names and layout)."""

    def recognize(self, content: object) -> bool:
        """Whether a file's content, as `io.read` gives it, has this layout."""
        ...

    def load(self, path: Path, content: Mapping) -> nn.Module:
        """The model in such a file. Raises ValueError, naming the file, where it does not fit."""
        ...

    def inspect(self, path: Path, content: Mapping) -> dict:
        """What the file is, by heading: "parts" and "config" among them."""
        ...

    def export(self, model: nn.Module) -> object:
        """A model in this layout, for torch.save."""
        ...


@dataclass(frozen=True)
class System:
    """A kind of network that checkpoints hold."""

    format: str
    """Its name in the metadata of our files."""
    title: str
    """Its name for people."""
    config: type
    """The frozen dataclass of its sizes; models have one as `config`."""
    build: Callable[[Any, Collection[str]], nn.Module]
    """build(config, names of the file's tensors) -> a model to be filled."""
    adapter: Adapter | None = None
    """Reads and writes the original project's files; None where there are none."""
    exact: tuple[str, ...] = ()
    """Beginnings of the tensors' names that are never rounded."""
    foreign_name: Callable[[str], str] | None = None
    """The tensor's name in the original, which error messages add to ours."""


def save(
    system: System,
    model: nn.Module,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model as safetensors, rounded to `dtype` (but for the system's exact tensors)."""
    tensors = model.state_dict()
    if dtype is not None:
        tensors = {k: t if k.startswith(system.exact) else t.to(dtype) for k, t in tensors.items()}
    texts = {"format": system.format, "config": json.dumps(asdict(model.config))}
    write_tensors(path, tensors, texts | dict(metadata or {}))


def load(system: System, path: Path, content: Mapping, metadata: Mapping[str, str]) -> nn.Module:
    """The model of one of our files, read already: float32, eval mode, without gradients.

    Raises ValueError, naming the file, for a config that cannot be read and for anything but a
    whole, finite, matching set of tensors.
    """
    model = system.build(read_config(system, path, metadata), content.keys())
    fill(model, content, find_misfits(model, content), path, system.foreign_name)
    return model.eval().requires_grad_(False)


def inspect(system: System, path: Path, content: Mapping, metadata: Mapping[str, str]) -> dict:
    """What one of our files is: format, sizes of its parts, config, other metadata."""
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in content.items():
        part = ".".join(name.split(".")[: 2 if name.startswith("vqvae.") else 1])
        parts.setdefault(part, []).append(tensor)
    return {
        "file": str(path),
        "format": f"{system.title}, safetensors",
        "parts": {part: count_sizes(tensors) for part, tensors in parts.items()},
        "config": asdict(read_config(system, path, metadata)),
        **{k: v for k, v in metadata.items() if k not in ("format", "config")},
    }


def export(
    system: System, model: nn.Module, path: str | Path, dtype: torch.dtype | None = None
) -> None:
    """Write a model as the file's ending says: .safetensors (ours, in `dtype`) or .pth (the
    original's layout). Raises ValueError for another ending."""
    check_ending(path)
    if Path(path).suffix == ".safetensors":
        save(system, model, path, dtype=dtype)
    elif system.adapter is None:
        raise ValueError(f"{path}: {system.title} has one layout only, .safetensors")
    else:
        write_pickle(path, system.adapter.export(model))


def check_ending(path: str | Path) -> None:
    """ValueError if the name ends in neither .safetensors nor .pth."""
    if Path(path).suffix not in (".safetensors", ".pth"):
        raise ValueError(
            f"{path}: end the name in .safetensors (ours) or .pth (the original's layout)"
        )


def read_config(system: System, path: Path, metadata: Mapping[str, str]) -> Any:
    """The config in the metadata of one of our files; ValueError where it cannot be read."""
    try:
        return system.config(**json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{path}: its config cannot be read ({e})") from None


def find_misfits(model: nn.Module, content: Mapping[str, Tensor]) -> list[str]:
    """One sentence for each tensor that is missing, unexpected or of another shape."""
    expected = model.state_dict()
    misfits = [f"{name} is missing" for name in expected if name not in content]
    misfits += [f"{name} is unexpected" for name in content if name not in expected]
    return misfits + [
        f"{name} is {list(content[name].shape)} instead of {list(t.shape)}"
        for name, t in expected.items()
        if name in content and content[name].shape != t.shape
    ]


def fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    misfits: list[str],
    path: Path,
    foreign_name: Callable[[str], str] | None = None,
) -> None:
    """Put tensors into a model, as float32. Raises ValueError, naming the file, if there are
    `misfits` or one of them is not finite."""
    if misfits:
        more = f", and {len(misfits) - 20} more" if len(misfits) > 20 else ""
        raise ValueError(f"{path} does not fit: {'; '.join(misfits[:20])}{more}")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            also = f" ({foreign_name(name)})" if foreign_name else ""
            raise ValueError(f"{path}: the tensor {name}{also} holds NaN or infinity")
    floats = {name: t.to(torch.float32, copy=True) for name, t in state.items()}
    model.load_state_dict(floats, assign=True)
