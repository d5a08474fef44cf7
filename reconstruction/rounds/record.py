# What became of a round: its trials, its verdict, and how both are written for people.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """What becomes of a round; the values are those of stats/rounds_step*.json."""

    OPEN = "open"
    KEPT = "kept"
    ROLLED_BACK = "rolled back"
    REFUSED = "refused"
    """Nothing of it was trained on."""


@dataclass(frozen=True)
class Trial:
    """PSNR (dB) of the views set aside after the same steps on these `views`."""

    views: str
    psnr: float


FIXED, PHOTOS = "fixed", "photos only"
TRIALS = {FIXED: "gate_after", PHOTOS: "gate_without"}
"""Trials in their order, and their keys in stats/rounds_step*.json."""


@dataclass
class Round:
    """A round: when it began, what was trained on, how it was judged.

    until: the step at which the next round begins, or the run ends. views, refused: how many
    generated views are trained on and how many are not. aside: training views that judge the round.
    gate_before: their PSNR (dB) before it; trials: and after each trial. agreement, consistency:
    means of the views' own (see `generators.Generated`). potential: share of the renders' squared
    error that the corrections trained on could remove at best. references: names of the photos
    that guided. seconds: of each part. memory: the run's peak so far, in GB.
    """

    step: int
    until: int
    verdict: Verdict = Verdict.OPEN
    why: str = ""
    views: int = 0
    refused: int = 0
    aside: list[int] = field(default_factory=list)
    gate_before: float | None = None
    trials: list[Trial] = field(default_factory=list)
    agreement: float | None = None
    consistency: float | None = None
    potential: float | None = None
    references: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: float | None = None

    def psnr_after(self, views: str) -> float | None:
        """PSNR of the trial on these views; None where it was not made."""
        return next((trial.psnr for trial in self.trials if trial.views == views), None)

    def to_json(self) -> dict[str, Any]:
        """Under the keys of stats/rounds_step*.json."""
        values: dict[str, Any] = {}
        for f in fields(self):
            if f.name == "trials":
                values |= {key: self.psnr_after(views) for views, key in TRIALS.items()}
            else:
                values[JSON_KEYS.get(f.name, f.name)] = getattr(self, f.name)
        return values | {"verdict": self.verdict.value}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Round:
        """The inverse; TypeError for other keys, ValueError for an unknown verdict."""
        values = dict(values)
        for former in ("gate_unfixed", "post_gain"):
            values.pop(former, None)
        psnrs = {views: values.pop(key, None) for views, key in TRIALS.items()}
        for name, key in JSON_KEYS.items():
            values[name] = values.pop(key, None)
        values["trials"] = [Trial(views, psnr) for views, psnr in psnrs.items() if psnr is not None]
        values["verdict"] = Verdict(values["verdict"])
        return cls(**values)


JSON_KEYS = {"agreement": "agrees", "consistency": "consistent"}


def rounds_to_json(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """Rounds as plain values."""
    return [r.to_json() for r in rounds]


def rounds_from_json(values: Sequence[dict[str, Any]]) -> list[Round]:
    """The inverse; errors as `Round.from_json`."""
    return [Round.from_json(value) for value in values]
