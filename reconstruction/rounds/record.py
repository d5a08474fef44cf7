# What a round was, as it is kept with the run and told in the report.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

AGREES = 1.002  # photos that agree better by less than 0.2 % say nothing for a round
MATTERS = 0.1  # dB on the views set aside: less, between fixed and unfixed, may be chance


@dataclass
class Round:
    """A round as it is told. until: the step at which the next one begins, or the run ends. gate_*:
    PSNR of the views set aside before the round and at the end of its trials: on fixed views, on
    the same views unfixed, and on photos alone (None: not measured).
    post_gain: dB that fixing brings to their renders. agrees: mean error to photos that did not
    guide the fixing, before over after; consistent: share of pixels that fixed views do not
    contradict in each other. seconds: of each part. memory: the run's peak so far, in GB."""

    step: int
    until: int
    verdict: str = "open"
    why: str = ""
    views: int = 0
    refused: int = 0
    aside: list[int] = field(default_factory=list)
    gate_before: float | None = None
    gate_after: float | None = None
    gate_unfixed: float | None = None
    gate_without: float | None = None
    agrees: float | None = None
    consistent: float | None = None
    post_gain: float | None = None
    references: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    memory: float | None = None


def story(rounds: list[Round]) -> list[dict]:
    """As plain values."""
    return [asdict(r) for r in rounds]


def retold(values: list[dict]) -> list[Round]:
    """The inverse; TypeError for other keys."""
    return [Round(**value) for value in values]


def post_verdict(rounds: Sequence[Round]) -> str:
    """Whether fixing the renders themselves is worth it, and what says so: the last views that were
    set aside or, where none were, the photos that checked the fixed views."""
    gains = [r.post_gain for r in rounds if r.post_gain is not None]
    if gains:
        return f"{'yes' if gains[-1] > 0 else 'no'}, by views set aside"
    ratios = [r.agrees for r in rounds if r.agrees is not None]
    if ratios:
        return f"{'yes' if ratios[-1] > AGREES else 'no'}, by photos that did not guide it"
    return "not known"
