# What all comparisons with original networks share: weights and inputs by name, and a table.
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-4  # largest absolute error over the array's deviation
RMS = 2e-5
OUTLIERS = 0.005  # of a chain of steps may be beyond TOLERANCE
TOKENS = 0.999  # of the token maps must be equal


@dataclass(frozen=True)
class Row:
    """One comparison: its error and the largest error that passes."""

    name: str
    error: float
    limit: float

    @property
    def passes(self) -> bool:
        """Whether the error is within the limit."""
        return self.error <= self.limit


def named_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter [shape] float32 that a full name stands for."""
    a = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if a.ndim >= 2:
        return a / np.float32(np.sqrt(np.prod(shape[1:])))
    return 1 + np.float32(0.1) * a if name.endswith(".weight") else np.float32(0.1) * a


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers [shape], seeded with a name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def picture(name: str, size: tuple[int, int]) -> Tensor:
    """The picture [3,H,W] in [0,1] that a name stands for; size is (height, width)."""
    return 0.5 + 0.5 * noise(name, (3, *size)).tanh()


def named_weights(folder: Path, part: str) -> dict[str, Tensor]:
    """The parameters of one part of the original, by its names; the folder's keys.json has the
    shapes."""
    meta = json.loads((folder / "meta.json").read_text())
    keys, prefix = json.loads((folder / "keys.json").read_text()), meta.get("name_prefix", "")
    return {
        name: torch.from_numpy(named_weight(prefix + name, tuple(keys[part][name])))
        for name in keys[f"{part}_parameters"]
    }


def read_arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of `<name>.npz`. FileNotFoundError, naming it, if it is not there."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: name a folder of parity vectors")
    with np.load(path) as file:
        return dict(file)


class Comparison:
    """A table with a row for each comparison."""

    def __init__(self):
        self.rows: list[Row] = []

    def values(self, name: str, ours: Tensor, theirs: np.ndarray, limit: float = TOLERANCE) -> None:
        """Largest absolute error over the expected array's deviation."""
        theirs = theirs.astype(np.float64)
        error = np.abs(ours.double().numpy() - theirs).max() / theirs.std()
        self.rows.append(Row(name, float(error), limit))

    def number(self, name: str, ours: Tensor, theirs: np.ndarray, limit: float = 1e-5) -> None:
        """Relative error of a single number."""
        self.rows.append(Row(name, abs(ours.item() / float(theirs) - 1), limit))

    def rms(self, name: str, ours: Tensor, theirs: np.ndarray, limit: float) -> None:
        """Root mean square error over the deviation."""
        difference = ours.double().numpy() - theirs
        self.rows.append(Row(name, float(np.sqrt(np.mean(difference**2)) / theirs.std()), limit))

    def chain(self, name: str, ours: Tensor, theirs: np.ndarray) -> None:
        """Two rows for the end of many steps, each of which amplifies float32's rounding: the rms
        error, and the fraction of values beyond TOLERANCE, both over the deviation."""
        self.rms(f"{name} (rms)", ours, theirs, RMS)
        beyond = np.abs(ours.double().numpy() - theirs) > TOLERANCE * theirs.std()
        self.rows.append(Row(f"{name} (fraction beyond)", float(beyond.mean()), OUTLIERS))

    def tokens(self, name: str, ours: Tensor, theirs: np.ndarray) -> None:
        """Fraction of token indices that differ."""
        wrong = float((ours.numpy() != theirs).mean())
        self.rows.append(Row(name, wrong, 1 - TOKENS if theirs.size > 100 else 0.0))
