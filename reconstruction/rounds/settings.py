# When rounds of fixing happen, at which views, and how the fixed views are trained on.
from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

ORIGINAL_STEPS = (3_000, 6_000, *range(8_000, 60_001, 2_000))
MOST_VIEWS = 60  # novel views of a round
LEAST_DRAWS = 4  # times that each fixed view should be trained on


@dataclass(frozen=True)
class FixConfig:
    """Rounds of fixing and distilling. Numbers of steps are those before steps_scaler."""

    fix_steps: tuple[int, ...] | None = None
    """Steps after which novel views are fixed (default: `rounds` of them, evenly spaced from
    `first_round` to the end of the run)."""
    rounds: int = 2
    """Number of rounds, unless fix_steps are given."""
    first_round: float = 0.84
    """Share of the run before the first round (MCMC has stopped moving Gaussians by then: the same
    change, made earlier, also changes by chance where they go); a run that starts from splats
    begins with one."""
    targets: Literal["auto", "test", "interp", "perturb", "trajectory"] = "auto"
    """Cameras of the novel views: the held-out ones, a path through the training views, views
    around them, or --trajectory; auto: the held-out ones if there are any, else a path."""
    trajectory: Path | None = None
    """Your own cameras: a result's cameras.json, or a transforms.json, in the capture's world."""
    novel_views: int | None = None
    """Most novel views of a round (default: 60, or fewer, so that each is trained on four times or
    more)."""
    shift: float = 1.0
    """How far each round moves from the training views towards the targets, in units of the
    distance between training cameras (or see shift_in_world_units)."""
    shift_in_world_units: bool = False
    """Measure shift in world units, as the original does; depends on the scene's scale."""
    references: int = 1
    """Training photos that guide the fixing of a view; one more checks the result."""
    reference_by: Literal["covisibility", "pose"] = "covisibility"
    """Choose them by how much of the view they see, or by pose alone."""
    distil: Literal["correction", "picture"] = "correction"
    """What a fixed view teaches: the difference that fixing made, as far as the splats lack it
    still; or the fixed picture, which also holds back what photos teach them meanwhile."""
    novel_share: float = 0.6
    """Share of the steps that train on a fixed view."""
    fade: bool = False
    """Lower that share to zero until the next round, as the fixed renders become outdated."""
    beside: bool = True
    """Train on a fixed view in addition to the step's photo; off: instead of it."""
    novel_data_lambda: float = 1.0
    """Weight of a fixed view's loss."""
    real_data_lambda: float = 1.0
    """Weight of a photo's loss once there are fixed views."""
    keep_views: Literal["latest", "all"] = "latest"
    """Train on the fixed views of the latest round, or of all rounds."""
    gate: Literal["matched", "quick", "off"] = "matched"
    """Keep a round only if photos that did not guide it speak for it, and if it does not harm
    training views that were set aside. matched: compared with the same steps on photos alone;
    quick: compare only if the views set aside got worse; off: keep every round."""
    gate_share: float = 0.1
    """Share of the training views that are set aside to judge a round."""
    gate_stretch: float = 0.5
    """Length of each of the two trials, as a share of the steps until the next round; these steps
    are then made again with all views."""
    gate_least: int = 10
    """Set no views aside if there are fewer training views than this."""
    confident: bool = True
    """Weight the pixels of fixed views by confidence; off: by alpha > 0.5 only."""
    save_novel: bool = True
    """Write each round's views to renders/novel/<step>/{Pred,Alpha,Fixed,Confidence,Ref}."""
    post: Literal["auto", "always", "never"] = "auto"
    """Also fix the evaluated renders, and report both; auto: only at the end. The report says
    whether that is worth it, by the views set aside or by photos not used for fixing."""

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
        """Number of novel views worth fixing in a round that is followed by `steps` steps."""
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
        distil="picture",
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
