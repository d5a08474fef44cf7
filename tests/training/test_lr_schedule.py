# Learning rate and weight decay at points worked out by hand (VAR, arXiv 2404.02905).
import math

import pytest

from training.lr_schedule import LRSchedule

KINDS = ("lin0", "lin", "lin00", "cos", "exp", "lin0.4")


def schedule(kind="lin0", total=101, warmup=0, **changes):
    """By default 101 steps without warm-up: step n is n percent of the way."""
    return LRSchedule(kind, total, warmup, **{"wpe": 0.01, **changes})


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        # 0.01 + 0.99 * (1 - p) / 0.7 from p = 0.3 on
        ("lin0", {0: 1, 29: 1, 30: 1, 65: 0.505, 86: 0.208, 100: 0.01}),
        # the same over 0.85 from p = 0.15 on
        ("lin", {0: 1, 14: 1, 15: 1, 32: 0.802, 66: 0.406, 100: 0.01}),
        ("lin00", {0: 1, 1: 0.9901, 50: 0.505, 75: 0.2575, 100: 0.01}),
        ("cos", {0: 1, 25: 0.01 + 0.99 * (2 + math.sqrt(2)) / 4, 50: 0.505, 100: 0.01}),
        # a hundredth over 0.85: half of that is a tenth
        ("exp", {0: 1, 15: 1, 100: 0.01}),
        # halfway between 1 and 0.604, which a straight line to 0.01 has at 0.4, is 0.802
        ("lin0.4", {0: 1, 20: 0.901, 40: 0.802, 70: 0.406, 100: 0.01}),
    ],
)
def test_the_rate_at_points_worked_out_by_hand(kind, values):
    for step, value in values.items():
        assert schedule(kind).rate(step) == pytest.approx(value, abs=1e-12)


def test_exp_falls_by_equal_factors():
    falling = schedule("exp", total=201)
    assert falling.rate(115) == pytest.approx(0.1, abs=1e-12)
    factors = [falling.rate(n + 1) / falling.rate(n) for n in range(30, 200)]
    assert max(factors) - min(factors) < 1e-12
    assert factors[0] == pytest.approx(0.01 ** (1 / 170))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_warms_up_and_ends_exactly(kind):
    own = LRSchedule(kind, 60, 10, wp0=0.005, wpe=0.02)
    assert own.rate(0) == 0.005
    assert own.rate(5) == pytest.approx((0.005 + 1) / 2)
    assert own.rate(9) == pytest.approx(0.9005)
    assert own.rate(10) == 1
    assert own.rate(59) == pytest.approx(0.02, abs=1e-15)
    rates = [own.rate(n) for n in range(10, 60)]
    assert rates == sorted(rates, reverse=True)
    assert own.rate(70) == pytest.approx(0.02, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shortest_runs(kind):
    assert LRSchedule(kind, 1, 0).rate(0) == 1
    assert LRSchedule(kind, 2, 0, wpe=0.1).rate(1) == pytest.approx(0.1)
    assert LRSchedule(kind, 2, 1).rate(0) == 0.005
    assert LRSchedule(kind, 2, 1).rate(1) == 1
    assert LRSchedule(kind, 3, 0, wpe=0.0).rate(2) == 0


def test_weight_decay_falls_as_a_cosine():
    own = schedule(decay=0.04, decay_end=0.4)
    assert own.weight_decay(0) == pytest.approx(0.04)
    assert own.weight_decay(25) == pytest.approx(0.4 - 0.36 * (2 + math.sqrt(2)) / 4)
    assert own.weight_decay(50) == pytest.approx(0.22)
    assert own.weight_decay(100) == pytest.approx(0.4)
    assert schedule().weight_decay(37) == pytest.approx(0.05)
    assert LRSchedule("cos", 1, 0, decay=0.3, decay_end=0.1).weight_decay(0) == pytest.approx(0.3)


@pytest.mark.parametrize(
    "kind", ["linabc", "lin2", "lin1", "lin-0.5", "linnan", "0.4", "linear", "konstant", ""]
)
def test_other_kinds_are_refused(kind):
    with pytest.raises(ValueError, match=f"--sche={kind}: choose lin0"):
        schedule(kind)
