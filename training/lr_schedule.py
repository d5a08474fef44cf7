# Learning rate and weight decay over a run (VAR, arXiv 2404.02905, its code's `lr_wd_annealing`).
from __future__ import annotations

import math
from dataclasses import dataclass

CONSTANT = {"lin0": 0.3, "lin": 0.15, "lin00": 0.0}  # share of the run before the decline


@dataclass(frozen=True)
class LRSchedule:
    """Factor on the learning rate and value of the weight decay at each of `total` steps.

    The first `warmup` steps rise linearly from wp0 to 1, then `kind` falls to wpe: lin0, lin and
    lin00 stay at 1 for 30, 15 and 0 % and fall linearly; cos; exp (15 %, then exponentially);
    lin<T> falls slower in the first share T; constant stays. Raises ValueError for another kind.
    """

    kind: str
    total: int
    warmup: int
    wp0: float = 0.005
    wpe: float = 0.01
    decay: float = 0.05
    decay_end: float = 0.05

    def __post_init__(self) -> None:
        self.factor(0.5)

    def rate(self, step: int) -> float:
        """The learning rate's factor at a step."""
        if step < self.warmup:
            return self.wp0 + (1 - self.wp0) * step / self.warmup
        return self.factor((step - self.warmup) / max(1, self.total - 1 - self.warmup))

    def weight_decay(self, step: int) -> float:
        """The weight decay at a step: half a cosine from `decay` to `decay_end`."""
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / max(1, self.total - 1))
        return self.decay_end + (self.decay - self.decay_end) * cosine

    def factor(self, passed: float) -> float:
        """The learning rate's factor when a share `passed` of the steps after the warm-up is
        done."""
        passed = min(passed, 1.0)
        if self.kind == "constant":
            return 1.0
        if self.kind == "cos":
            return self.wpe + (1 - self.wpe) * (0.5 + 0.5 * math.cos(math.pi * passed))
        if self.kind == "exp":
            return self.wpe ** max(0.0, (passed - 0.15) / 0.85)
        if self.kind in CONSTANT:
            constant = CONSTANT[self.kind]
            if passed < constant:
                return 1.0
            return self.wpe + (1 - self.wpe) * (1 - passed) / (1 - constant)
        try:
            slow = float(self.kind.removeprefix("lin"))
        except ValueError:
            slow = -1.0
        if not self.kind.startswith("lin") or not 0 < slow < 1:
            raise ValueError(
                f"--sche={self.kind}: choose lin0, lin, lin00, lin0.4, cos, exp or constant"
            )
        middle = (1 + self.wpe + (1 - self.wpe) * (1 - slow)) / 2
        if passed < slow:
            return 1 + (middle - 1) * passed / slow
        return self.wpe + (middle - self.wpe) * (1 - passed) / (1 - slow)
