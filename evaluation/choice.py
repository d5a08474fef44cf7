# Which views stand for all: the median, the best and the worst.
from __future__ import annotations

from collections.abc import Sequence


def choose_views(values: Sequence[float | None]) -> dict[str, int]:
    """Index of the "median", the "best" and the "worst" view by values of which more is better.

    No view has two roles: of two views one is the best and the other the worst, and a view alone is
    the "only" one. Of an even number the lower median is taken; of equal values the first counts as
    the lower one. Views without a value are left out; {} if none has one.
    """
    known = [i for i, value in enumerate(values) if value is not None]
    order = sorted(known, key=lambda i: values[i])
    if len(order) < 2:
        return {"only": order[0]} if order else {}
    median = {"median": order[(len(order) - 1) // 2]} if len(order) > 2 else {}
    return median | {"best": order[-1], "worst": order[0]}
