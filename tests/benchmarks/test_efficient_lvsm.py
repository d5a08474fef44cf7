# The counts of operations that its ratios and floors are made of, and its table.
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.efficient_lvsm import (
    Options,
    count_efficient,
    count_lvsm,
    format_table,
    run,
)
from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig
from models.lvsm import LVSM, LVSMConfig

SMALL = Options(counts=(1, 3), targets=2, size=64, width=128, depth=2, repeats=1)


def test_operations_are_those_that_torch_counts():
    photos, rays, targets = (torch.zeros(1, n, c, 64, 64) for n, c in ((3, 3), (3, 6), (2, 6)))
    efficient = EfficientLVSM(EfficientLVSMConfig(depth=2, width=128))
    lvsm = LVSM(LVSMConfig(depth=4, width=128))
    for model, counted in ((efficient, count_efficient(SMALL, 3, 3)), (lvsm, count_lvsm(SMALL, 3))):
        exact = sdpa_kernel(SDPBackend.MATH)  # of the CPU's own kernel torch counts nothing
        with FlopCounterMode(display=False) as counter, torch.no_grad(), exact:
            model(photos, rays, targets)
        assert counter.get_total_flops() == counted


def test_the_published_ratios():
    """Eight targets of 256 pixels at the original's size: 8.6 times at 4 photos, 127 at 64."""
    original = Options(size=256, width=768, depth=12)
    for photos, ratio in ((4, 8.6), (64, 127)):
        ours = count_lvsm(original, photos) / count_efficient(original, photos, 1)
        assert ours == pytest.approx(ratio, rel=0.01)


def test_the_table():
    rows = run(SMALL)
    assert [row["photos"] for row in rows] == [1, 3]
    assert all(row["cached_ms"] > row["adding_ms"] > 0 for row in rows)
    lines = format_table(rows).splitlines()
    assert len(lines) == 4 and len({line.count("|") for line in lines}) == 1
