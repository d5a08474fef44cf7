# Files of torch.save without running code from them: tensors, plain values, and, as numbers, text
# and dicts, the NumPy scalars, paths, parsed arguments and ParameterDicts that trainers leave in
# theirs.
from __future__ import annotations

import pickletools
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

NUMPY_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
PATHS = tuple(
    f"{module}.{kind}"
    for module in ("pathlib", "pathlib._local")
    for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
)
ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")


SETS = ("builtins.set", "__builtin__.set")
NAMESPACE = "argparse.Namespace"


def load(path: Path, *, mmap: bool = False) -> Any:
    """What is in the file, on the CPU. mmap: tensors are read from the file when they are used.

    ValueError says that it holds code, NumPy arrays or other
    objects (with their names), or is truncated or none of torch's."""
    with path.open("rb"):  # a missing or unreadable file is an OSError
        pass
    try:
        return _load(path, mmap)
    except Exception as error:  # a damaged pickle raises nearly anything
        names = _list_names(path)
        harmless = {*NUMPY_SCALARS, *PATHS, *SETS, NAMESPACE, "numpy.dtype", "_codecs.encode"}
        if names and names <= harmless:
            try:
                with torch.serialization.safe_globals(_harmless_globals()):
                    return _load(path, mmap)
            except Exception:
                names = set()
        if not names:
            text = f"{path} is truncated or not a checkpoint; save or copy it again"
        elif names <= harmless | {*ARRAYS, "numpy.ndarray"}:
            text = f"{path} holds NumPy arrays, not only tensors; save it again as tensors"
        else:
            shown = ", ".join(sorted(names - harmless)[:3])
            text = (
                f"{path} contains code, not only tensors; refused: it names {shown[:120]}; save it "
                "again with tensors, numbers and text only"
            )
        raise ValueError(text) from error


def _load(path: Path, mmap: bool) -> Any:
    with warnings.catch_warnings():  # about pickles that other tools wrote
        warnings.simplefilter("ignore")
        mmap = mmap and zipfile.is_zipfile(path)  # the older format cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)


class _ScalarType:
    """In place of numpy.dtype: a type of numbers, and nothing else."""

    def __init__(self, code: str, *_: object) -> None:
        if not isinstance(code, str) or code[:1] not in "biuf":
            raise ValueError("not a type of numbers")
        self.type = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] in ("<", ">"):
            self.type = self.type.newbyteorder(state[1])


class _Namespace(dict):
    """In place of argparse.Namespace: the arguments by name."""

    def __setstate__(self, state: dict) -> None:
        self.update(state)


class _ParameterDict(dict):
    """In place of torch's: the parameters by name."""

    def __setstate__(self, state: dict) -> None:
        values = {**state, **state["_parameters"], **state["_buffers"]}
        self.update({name: values[name] for name in state.get("_keys", state["_parameters"])})


def _read_scalar(kind: _ScalarType, data: bytes) -> float | int | bool:
    """In place of numpy's scalar."""
    return np.frombuffer(data, kind.type, 1)[0].item()


def _read_path(*parts: str) -> str:
    """In place of a path."""
    return "/".join(map(str, parts))


def _harmless_globals() -> list[Any]:
    from _codecs import encode

    return [
        (_ScalarType, "numpy.dtype"),
        (encode, "_codecs.encode"),
        (_Namespace, NAMESPACE),
        (_ParameterDict, "torch.nn.modules.container.ParameterDict"),
        *((set, name) for name in SETS),
        *((_read_scalar, name) for name in NUMPY_SCALARS),
        *((_read_path, name) for name in PATHS),
    ]


def _list_names(path: Path) -> set[str]:
    """What a pickle names besides torch's own; reads it without running it."""
    names: set[str] = set()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
                content = archive.read(name)
        else:
            content = path.read_bytes()
        texts: list[str] = []
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in ("GLOBAL", "INST"):
                names.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(texts[-2:]) or "an object")
            elif isinstance(argument, str):
                texts.append(argument)
    except Exception:  # damaged before it named any, or more
        pass
    return {name for name in names if not name.startswith(("torch.", "collections."))}
