# Tiles: few, covering, evenly spread, and blended without a trace where they agree.
from itertools import pairwise

import pytest
import torch

from fixers.tiling import blend, cover, spread, weigh


@pytest.mark.parametrize("length", range(32, 200))
def test_tiles_cover_with_overlap_and_none_is_idle(length):
    at = spread(length, 32)
    assert at[0] == 0
    assert at[-1] == length - 32
    for a, b in pairwise(at):
        assert 0 < b - a <= 28
    if len(at) > 1:  # one fewer could not cover with the overlap
        assert 32 + (len(at) - 2) * 28 < length


def test_a_dl3dv_frame_takes_four_tiles_not_six():
    assert len(cover(34, 60, (32, 32))) == 4


def test_tiles_that_agree_blend_to_what_they_agree_on():
    latent = torch.randn(2, 3, 45, 71)
    tiles = cover(45, 71, (32, 32))
    parts = torch.stack([latent[..., t.top : t.top + 32, t.left : t.left + 32] for t in tiles])
    torch.testing.assert_close(blend(parts, tiles, 45, 71), latent)


def test_weights_are_symmetric_and_positive():
    weight = weigh((32, 18))
    assert (weight > 0).all()
    torch.testing.assert_close(weight, weight.flip(0))
    torch.testing.assert_close(weight, weight.flip(1))
    assert weight.max() == weight[15:17, 8:10].max()


def test_one_tile_where_one_suffices():
    assert spread(32, 32) == [0]
    assert spread(5, 32) == [0]
