# Which systems there are, by the format's name in their files; adding one is a line here.
from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import nn

from models.archonview.adapter import SYSTEM as ARCHONVIEW
from models.checkpoints import system as layout
from models.checkpoints.io import read
from models.checkpoints.system import System
from models.efficient_lvsm.adapter import SYSTEM as EFFICIENT_LVSM
from models.gsvar.loading import SYSTEM as GSVAR
from models.lvsm.adapter import SYSTEM as LVSM
from runtime.arguments import ArgumentError

SYSTEMS: dict[str, System] = {
    system.format: system for system in (ARCHONVIEW, GSVAR, EFFICIENT_LVSM, LVSM)
}


def load(path: str | Path) -> tuple[Any, nn.Module]:
    """Config and model of any file of any system, in eval mode, float32, on the CPU.

    Raises FileNotFoundError, and ValueError, in one sentence that names the file, for a file that
    is damaged, of no system here, or does not fit its config.
    """
    path = Path(path)
    content, metadata = read(path)
    model = _load(find_system(path, content, metadata), path, content, metadata)
    return model.config, model


def _load(system: System, path: Path, content: Mapping, metadata: dict[str, str]) -> nn.Module:
    if metadata.get("format") == system.format:
        return layout.load(system, path, content, metadata)
    return system.adapter.load(path, content)


def inspect(path: str | Path) -> dict:
    """What a file is: format, parts with tensors and parameters, config.

    Raises as `load`, which is tried; only a file that needs another one beside it passes untried.
    """
    path = Path(path)
    content, metadata = read(path)
    system = find_system(path, content, metadata)
    with suppress(ArgumentError):
        _load(system, path, content, metadata)
    if metadata.get("format") == system.format:
        return layout.inspect(system, path, content, metadata)
    return system.adapter.inspect(path, content)


def find_system(path: Path, content: object, metadata: dict[str, str]) -> System:
    """The system that a file's content belongs to; ValueError if it is none of those here."""
    if metadata.get("format") in SYSTEMS:
        return SYSTEMS[metadata["format"]]
    for system in SYSTEMS.values():
        if system.adapter is not None and system.adapter.recognize(content):
            return system
    names = ", ".join(system.title for system in SYSTEMS.values())
    raise ValueError(f"{path} is no checkpoint of a system that is here ({names})")


def system_of(model: nn.Module) -> System:
    """The system of a model, by the class of its config."""
    return next(s for s in SYSTEMS.values() if isinstance(model.config, s.config))
