# Everything that changes during an optimisation, and how it is kept for a stopped run to go on.
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from reconstruction.history import History
from reconstruction.rounds.novel import NovelViews
from reconstruction.rounds.record import Round, retold, story
from reconstruction.views import ViewOrder
from splats import checkpoint
from splats.gaussians import Splats


@dataclass
class State:
    """A run between two steps.

    done: steps completed. densification: the strategy's own state. rounds, novel, novel_order:
    the fix-and-distil rounds so far, the views they gave and the order in which those are seen.
    """

    splats: Splats
    optimisers: dict[str, torch.optim.Adam]
    densification: dict[str, Any]
    views: ViewOrder
    done: int = 0
    history: History = field(default_factory=History)
    rounds: list[Round] = field(default_factory=list)
    novel: NovelViews | None = None
    novel_order: ViewOrder | None = None
    mix: torch.Generator = field(default_factory=torch.Generator)

    def set_novel(self, novel: NovelViews | None) -> None:
        """Train on these fixed views from now on; None: on photos alone."""
        self.novel = novel
        self.novel_order = None
        if novel is not None:
            self.novel_order = ViewOrder(tuple(range(len(novel))), self.mix.initial_seed())

    def record(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint of this run tells besides its splats."""
        told = {"settings": json.dumps(settings), "history": json.dumps(asdict(self.history))}
        return {**told, "rounds": json.dumps(story(self.rounds))}

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write all that a bit-exact continuation needs, the random states included."""
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        checkpoint.write(
            path,
            self.splats,
            max(0, self.done - 1),
            **self.record(settings),
            done=self.done,
            optimisers={name: o.state_dict() for name, o in self.optimisers.items()},
            densification=self.densification,
            views=self.views.state_dict(),
            novel=None if self.novel is None else self.novel.state_dict(),
            novel_order=None if self.novel_order is None else self.novel_order.state_dict(),
            mix=self.mix.get_state(),
            random=torch.get_rng_state(),
            random_cuda=torch.cuda.get_rng_state() if cuda else None,
        )

    def load(self, path: Path, saved: dict[str, Any]) -> None:
        """Continue from what `save` wrote, read by `checkpoint.load`.

        Call it on a state that was set up like the saved one. ValueError if `saved` is no state.
        """
        splats, step = checkpoint.parse(path, saved)
        try:
            device = self.splats["means"].device
            for name, optimiser in self.optimisers.items():
                parameter = torch.nn.Parameter(splats[name].detach().to(device))
                self.splats[name] = parameter
                optimiser.param_groups[0]["params"] = [parameter]
                optimiser.state.clear()
                optimiser.load_state_dict(saved["optimisers"][name])
            self.densification = {
                key: value.to(device) if isinstance(value, torch.Tensor) else value
                for key, value in saved["densification"].items()
            }
            self.views.load_state_dict(saved["views"])
            self.history = History.from_checkpoint(saved)
            self.rounds = retold(json.loads(saved["rounds"]))
            self.novel, self.novel_order = None, None
            if saved["novel"] is not None:
                self.set_novel(NovelViews.from_state(saved["novel"]))
                self.novel_order.load_state_dict(saved["novel_order"])
            self.mix.set_state(saved["mix"])
            torch.set_rng_state(saved["random"])
            if device.type == "cuda" and saved["random_cuda"] is not None:
                torch.cuda.set_rng_state(saved["random_cuda"], device)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{path} is not the state of a stopped run; start over with --no-resume"
            ) from error
        self.done = int(saved.get("done", step + 1))
