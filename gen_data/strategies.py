# Five degradation strategies: which frames train, what a reconstruction starts from, its folder.
# underfitting and sparse: GS-VAR and Difix3D (arXiv 2503.01774, table 1); random and noise:
# GaussFusion; cross extrapolates from one half of the path, as Difix3D does on a rig.
from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from scenes.scene import Split

Name = Literal["underfitting", "sparse", "random", "noise", "cross"]
RANDOM_SHARES = (0.05, 0.20)  # of the frames that train


@dataclass(frozen=True)
class Strategy:
    """One degradation strategy; fields that it does not use have no effect.

    train_every: sparse and noise train on every N-th frame. start: the points noise starts from,
    instead of the capture's. half: of the path, on which cross trains. seed: of random.
    """

    name: Name
    train_every: int = 10
    start: Literal["random", "dense"] = "random"
    half: Literal[1, 2] = 1
    seed: int = 0

    @property
    def variant(self) -> str:
        """The setting that distinguishes runs of one strategy, as in folder names and keys."""
        return {
            "underfitting": "",
            "sparse": f"{self.train_every}",
            "random": f"{self.seed}",
            "noise": f"{self.start}_{self.train_every}",
            "cross": f"{self.half}",
        }[self.name]

    @property
    def folder(self) -> str:
        """The result's folder in the scene's: gs_recon, gs_recon_sparse_10, ..."""
        if self.name == "underfitting":
            return "gs_recon"
        return f"gs_recon_{self.name}_{self.variant}"

    def split(self, n: int, scene: str) -> Split:
        """Split n frames, in order, into those that train and those that are rendered.

        scene: its name, which is part of the seed of `random`. Raises ValueError if no frame is
        left to render.
        """
        from scenes.scene import Split

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
