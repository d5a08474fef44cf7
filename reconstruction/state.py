# Everything that changes during an optimisation, and how a stopped run saves it to go on.
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from reconstruction.corrections.corrections import Corrections
from reconstruction.rounds.distillation import Distillation
from reconstruction.rounds.record import rounds_from_json, rounds_to_json
from reconstruction.views import ViewOrder
from splats.formats import checkpoint
from splats.gaussians import NAMES, Splats


@dataclass
class History:
    """What a run has been through, saved in its checkpoints and drawn in its report.

    seconds: time spent optimising. curve: (step, PSNR) of the training views, averaged over
    stretches. evaluations: {"step", "psnr", ...} of the held-out views, steps counted from zero.
    """

    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_checkpoint(cls, saved: dict[str, Any]) -> History:
        """The history in a checkpoint, empty if another program wrote it; ValueError if broken."""
        text = saved.get("history")
        if not isinstance(text, str):
            return cls()
        try:
            values = json.loads(text)
            curve = [(int(step), float(psnr)) for step, psnr in values["curve"]]
            evaluations = [{**known, "step": int(known["step"])} for known in values["evaluations"]]
            return cls(float(values["seconds"]), curve, evaluations)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(
                "the checkpoint's history is damaged; use another checkpoint"
            ) from None


@dataclass
class State:
    """A run between two steps.

    done: steps completed. densification: the strategy's own state. views: the order of the photos.
    distillation: the fix-and-distil rounds so far and the views they gave. corrections: what the
    training photos have of their own.
    """

    splats: Splats
    optimizers: dict[str, torch.optim.Adam]
    densification: dict[str, Any]
    views: ViewOrder
    distillation: Distillation
    corrections: Corrections
    done: int = 0
    history: History = field(default_factory=History)

    def record(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint of this run holds besides its splats, as JSON by key."""
        values = {
            "settings": settings,
            "history": asdict(self.history),
            "rounds": rounds_to_json(self.distillation.rounds),
        }
        return {key: json.dumps(value) for key, value in values.items()}

    def save(self, path: Path, settings: dict[str, Any]) -> None:
        """Write all that a bit-exact continuation needs, the random states included."""
        cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
        checkpoint.write(
            path,
            self.splats,
            max(0, self.done - 1),
            **self.record(settings),
            done=self.done,
            optimizers={name: o.state_dict() for name, o in self.optimizers.items()},
            densification=self.densification,
            views=self.views.state_dict(),
            distillation=self.distillation.state_dict(),
            signals={n: v.detach().cpu() for n, v in self.splats.items() if n not in NAMES},
            corrections=self.corrections.state_dict(),
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
            for name, optimizer in self.optimizers.items():
                values = splats[name] if name in NAMES else saved["signals"][name]
                parameter = torch.nn.Parameter(values.detach().to(device))
                self.splats[name] = parameter
                optimizer.param_groups[0]["params"] = [parameter]
                optimizer.state.clear()
                optimizer.load_state_dict(saved["optimizers"][name])
            self.densification = {
                key: value.to(device) if isinstance(value, torch.Tensor) else value
                for key, value in saved["densification"].items()
            }
            self.views.load_state_dict(saved["views"])
            self.history = History.from_checkpoint(saved)
            self.distillation.load_state_dict(saved["distillation"])
            self.distillation.rounds = rounds_from_json(json.loads(saved["rounds"]))
            self.corrections.load_state_dict(saved.get("corrections", {}))
            torch.set_rng_state(saved["random"])
            if device.type == "cuda" and saved["random_cuda"] is not None:
                torch.cuda.set_rng_state(saved["random_cuda"], device)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{path} is not the state of a stopped run; start over with --no-resume"
            ) from error
        self.done = int(saved.get("done", step + 1))
