# How a reconstruction is made to fail: which frames train, what it starts from, and its folder.
# Underfitting and sparse are GS-VAR's and Difix3D's (arXiv 2503.01774, table 1); random frames and
# other starting points are GaussFusion's; cross extrapolates, as the rig in Difix3D's.
from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scenes.scene import Split

Name = Literal["underfitting", "sparse", "random", "noise", "cross"]
RANDOM_SHARES = (0.05, 0.20)  # of the frames that train


@dataclass(frozen=True)
class Strategy:
    """One way to degrade; the fields that a strategy does not use have no effect.

    train_every: sparse and noise train on every N-th frame. start: of noise, instead of the
    capture's points. half: of the path, on which cross trains. seed: of random.
    """

    name: Name
    train_every: int = 10
    start: Literal["random", "dense"] = "random"
    half: Literal[1, 2] = 1
    seed: int = 0

    @property
    def variant(self) -> str:
        """What tells two runs of one strategy apart, as it stands in folders and keys."""
        return {
            "underfitting": "",
            "sparse": f"{self.train_every}",
            "random": f"{self.seed}",
            "noise": f"{self.start}_{self.train_every}",
            "cross": f"{self.half}",
        }[self.name]

    @property
    def folder(self) -> str:
        """Below the scene's: gs_recon, gs_recon_sparse_10, ..."""
        if self.name == "underfitting":
            return "gs_recon"
        return f"gs_recon_{self.name}_{self.variant}"

    def split(self, n: int, scene: str) -> Split:
        """Of n frames in order. `scene`: its name, from which `random` draws as well.

        ValueError if no frame is left to render.
        """
        if self.name == "underfitting":
            train = range(n)
        elif self.name == "random":
            rng = np.random.default_rng([self.seed, zlib.crc32(scene.encode())])
            count = max(2, round(rng.uniform(*RANDOM_SHARES) * n))
            train = sorted(rng.choice(n, min(count, n), replace=False).tolist())
        elif self.name == "cross":
            middle = (n + 1) // 2
            train = range(middle) if self.half == 1 else range(middle, n)
        else:
            if self.train_every < 2:
                raise ValueError(
                    f"--train_every {self.train_every} leaves no frame to render; use 2 or more"
                )
            train = range(0, n, self.train_every)
        train = tuple(train)
        test = tuple(sorted(set(range(n)) - set(train)))
        if not test and self.name != "underfitting":
            raise ValueError(f"--strategy {self.name} leaves no frame of {n} to render")
        return Split("json", train, test, f"{self.name}: {len(train)} train, {len(test)} test")
