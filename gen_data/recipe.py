# The settings of a curation: strategy, optimisation and output of one scene's result.
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gsplat.strategy import MCMCStrategy

from gen_data.strategies import Strategy
from reconstruction import config as presets
from reconstruction.config import Config


@dataclass(frozen=True)
class Recipe:
    """Everything that a scene's result depends on; ValueError for invalid values.

    save_iter, render_iter: steps after which the splats are saved and the views rendered.
    image_folder: images_N for photos at 1/N of their size, or the name of a folder.
    max_steps: length of the whole optimisation, to which all its phases are scaled; None: the
        30,000 steps of 3DGS, stopped at the last iteration that is wanted.
    """

    strategy: Strategy
    render_iter: tuple[int, ...]
    save_iter: tuple[int, ...] = ()
    image_folder: str = "images"
    max_steps: int | None = None
    densify: Literal["default", "mcmc"] = "default"
    cap_max: int = 1_000_000
    init_type: Literal["sfm", "random"] = "sfm"
    init_num_pts: int = 100_000
    sh_degree: int = 3
    depth: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.render_iter:
            raise ValueError("--render_iter needs at least one iteration")
        for name in ("render_iter", "save_iter"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
            if any(step < 1 for step in getattr(self, name)):
                raise ValueError(f"--{name} counts from 1; leave out smaller numbers")
        if self.max_steps is not None and self.max_steps < self.last:
            raise ValueError(
                f"--max_steps {self.max_steps} ends before iteration {self.last} "
                "(--render_iter, --save_iter)"
            )
        if self.seed < 0:
            raise ValueError(f"--seed {self.seed} must not be negative")
        if Path(self.image_folder).name != self.image_folder:
            raise ValueError(f"--image_folder {self.image_folder} must be a name, as images_4")
        self.strategy.split(1000, "")  # checks --train_every before any work
        self.config()

    @property
    def last(self) -> int:
        """The last iteration that is wanted."""
        return max(*self.render_iter, *self.save_iter, 1)

    def config(self) -> Config:
        """The settings of the optimisation, scaled to `max_steps`."""
        base = presets.mcmc() if self.densify == "mcmc" else presets.default()
        steps = base.max_steps
        strategy = base.strategy
        if isinstance(strategy, MCMCStrategy):
            strategy = replace(strategy, cap_max=self.cap_max)
        noisy = self.strategy.name == "noise" and self.strategy.start == "random"
        return replace(
            base,
            max_steps=max(steps, self.last) if self.max_steps is None else steps,
            steps_scaler=1.0 if self.max_steps is None else self.max_steps / steps,
            strategy=strategy,
            init_type="random" if noisy else self.init_type,
            init_num_pts=self.init_num_pts,
            sh_degree=self.sh_degree,
            seed=self.seed,
        ).scaled()

    def settings(self) -> dict[str, Any]:
        """The settings that matter, as done.json stores them: plain JSON values only."""
        values = asdict(self) | {"strategy": self.strategy.name, "variant": self.strategy.variant}
        if self.densify != "mcmc":
            del values["cap_max"]
        return json.loads(json.dumps(values))
