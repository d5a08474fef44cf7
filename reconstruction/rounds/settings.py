# When novel views are fixed, which they are, and how they are trained on.
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

ORIGINAL_STEPS = (3_000, 6_000, *range(8_000, 60_001, 2_000))
MOST_VIEWS = 60  # novel views a round
LEAST_DRAWS = 4  # times that a fixed view is to be trained on, at least


@dataclass(frozen=True)
class FixConfig:
    """Rounds of fixing and distilling. Steps are counted in the run's own, before steps_scaler."""

    fix_steps: tuple[int, ...] | None = None
    """Steps after which novel views are fixed (default: `rounds` of them, evenly over the run from
    `first_round` on)."""
    rounds: int = 3
    """How many rounds, where no fix_steps are given."""
    first_round: float = 0.4
    """Share of the run before the first of them; a run that starts from splats has it at once."""
    targets: Literal["auto", "test", "interp", "perturb", "trajectory"] = "auto"
    """Where novel views are wanted: at the held-out views, on a path through the training views,
    around them, or along --trajectory; auto: held-out views where there are some, else a path."""
    trajectory: Path | None = None
    """Cameras of your own: cameras.json as results have it, or a transforms.json, in the capture's
    world."""
    novel_views: int | None = None
    """At most so many novel views a round (default: 60, and fewer where a round's steps would train
    on each less than four times)."""
    shift: float = 1.0
    """How far a round's views move from the training views towards their targets, in spacings of
    the training cameras (with shift_in_world_units in those)."""
    shift_in_world_units: bool = False
    """As the original, whose result depends on the scene's scale."""
    references: int = 1
    """Training photos that guide the fixing of a view; one more checks it."""
    reference_by: Literal["covisibility", "pose"] = "covisibility"
    """How they are chosen: by what they share with the view, or by pose alone."""
    novel_share: float = 0.6
    """Share of the steps that train on a fixed view right after a round."""
    fade: bool = True
    """The share falls to none by the next round: the splats outgrow the renders that were fixed."""
    beside: bool = True
    """A fixed view is trained on beside the step's photo; off: in its place, so that photos are
    seen less often than without fixing."""
    novel_data_lambda: float = 1.0
    """Weight of a fixed view's loss."""
    real_data_lambda: float = 1.0
    """Weight of a photo's loss, once there are fixed views."""
    keep_views: Literal["latest", "all"] = "latest"
    """Train on the fixed views of the latest round, or of all rounds."""
    gate: Literal["matched", "quick", "off"] = "matched"
    """Keep a round only if views that were set aside say that it does no harm. matched: compare
    with the same steps on the same views unfixed, beyond which 0.1 dB must be gained, and on photos
    alone; quick: only if they fell since the round began; off: keep every round."""
    gate_share: float = 0.1
    """Share of the training views set aside while a round is tried, to judge it by."""
    gate_stretch: float = 0.2
    """Share of the steps until the next round that each of a round's three trials makes; they are
    made again with all views."""
    gate_least: int = 10
    """With fewer training views none is set aside."""
    confident: bool = True
    """Weigh each pixel of a fixed view by how much speaks for it; off: by alpha > 0.5 alone."""
    save_novel: bool = True
    """Write each round's views to renders/novel/<step>/{Pred,Alpha,Fixed,Confidence,Ref}."""
    post: Literal["auto", "always", "never"] = "auto"
    """Fix the evaluated renders too, beside the plain ones; auto: at the end, and say whether it is
    worth it, by the views set aside or by photos that did not guide the fixing."""

    def __post_init__(self) -> None:
        for name in ("rounds", "novel_views", "references", "gate_least"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"--{name} is {number}; it must be at least 1")
        if self.fix_steps is not None and any(step < 1 for step in self.fix_steps):
            raise ValueError("--fix_steps counts from 1; leave out smaller numbers")
        for name in ("first_round", "novel_share", "gate_share", "gate_stretch"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must lie in 0 to 1")
        for name in ("shift", "novel_data_lambda", "real_data_lambda"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"--{name} is {getattr(self, name)}; it must be a number, not negative"
                )
        if self.targets == "trajectory" and self.trajectory is None:
            raise ValueError("--targets trajectory needs --trajectory FILE")

    def most_views(self, steps: int) -> int:
        """How many novel views are worth fixing in a round that `steps` steps follow."""
        if self.novel_views is not None:
            return self.novel_views
        draws = steps * self.novel_share * (0.5 if self.fade else 1.0)
        return min(MOST_VIEWS, max(1, round(draws / LEAST_DRAWS)))

    def steps(self, first: int, last: int, scaler: float, warm: bool) -> tuple[int, ...]:
        """Steps at which rounds begin in a run from `first` to `last`, both already scaled; `warm`:
        it started from splats."""
        if self.fix_steps is not None:
            starts = {max(1, round(step * scaler)) for step in self.fix_steps}
        else:
            start = 0.0 if warm else self.first_round
            shares = [start + (1 - start) * i / self.rounds for i in range(self.rounds)]
            starts = {first + round((last - first) * share) for share in shares}
        return tuple(sorted(step for step in starts if first <= step < last))


def find_end(step: int, steps: tuple[int, ...], last: int) -> int:
    """Where the round after the one at `step` begins, or the run of `last` steps ends."""
    return min(later for later in (*steps, last) if later > step)


def original(config: FixConfig) -> FixConfig:
    """The same with the schedule and the constants of Difix3D's trainer, and without a gate."""
    return replace(
        config,
        fix_steps=config.fix_steps or ORIGINAL_STEPS,
        targets="test",
        novel_views=config.novel_views or MOST_VIEWS,
        shift=0.5,
        shift_in_world_units=True,
        references=1,
        reference_by="pose",
        novel_share=0.3,
        fade=False,
        beside=False,
        novel_data_lambda=0.3,
        real_data_lambda=1.5,
        keep_views="latest",
        gate="off",
        confident=False,
        post="always",
    )
