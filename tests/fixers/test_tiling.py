# Tiles: few, covering, evenly spread, and blended without a trace where they agree.
from itertools import pairwise

import pytest
import torch

from fixers.tiling import Input, Tile, blend, cover, grid_of, pad, run, spread, weigh


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


def tile_network(images, tile, grid=None, scale=1, network=lambda x: x, **options):
    """`run` on one input on the grid that holds it."""
    H, W = images.shape[-2:]
    rows, columns = grid or grid_of(H, W, tile, scale)
    padded = pad(images, rows * scale, columns * scale)
    return run(network, [Input(padded, scale)], (rows, columns), tile, **options)


@pytest.mark.parametrize("size", [(37, 53), (16, 16), (5, 40), (1, 1), (100, 17)])
def test_the_identity_is_reproduced_at_any_size(size):
    images = torch.rand(2, 3, *size)
    answer = tile_network(images, (16, 12))
    torch.testing.assert_close(answer[..., : size[0], : size[1]], images)


def test_batches_do_not_change_results():
    images = torch.rand(3, 3, 40, 50)
    network = lambda x: x.roll(1, -1) * 2 + x.mean((-1, -2), keepdim=True)  # noqa: E731
    sizes = []

    def counted(x):
        sizes.append(len(x))
        return network(x)

    answers = [tile_network(images, (16, 16), network=counted, batch_size=n) for n in (1, 5, 64)]
    assert max(sizes) == len(cover(40, 50, (16, 16))) * 3
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])


@pytest.mark.parametrize("scale", [8, 16])
def test_a_network_may_answer_with_latents_of_pixels_and_pixels_of_latents(scale):
    """Mean colours of cells, and cells as large pixels: exact, so that overlaps agree."""
    images = torch.rand(2, 3, 5 * scale - 3, 9 * scale)

    def encode(x):
        return torch.nn.functional.avg_pool2d(x, scale)

    latent = tile_network(images, (4, 4), scale=scale, network=encode)
    assert latent.shape == (2, 3, 5, 9)
    whole = pad(images, 5 * scale, 9 * scale)
    torch.testing.assert_close(latent, encode(whole))

    def decode(cells, pixels, alpha):
        assert alpha is None
        return cells.repeat_interleave(scale, -1).repeat_interleave(scale, -2) + pixels

    inputs = [Input(latent), Input(whole, scale), None]
    decoded = run(decode, inputs, (5, 9), (3, 4), batch_size=3)
    torch.testing.assert_close(decoded, decode(latent, whole, None))


def test_an_input_may_be_read_elsewhere():
    images = torch.rand(2, 3, 20, 30)
    moved = images.roll((2, -3), (-2, -1))

    def place(n, tile):
        return Tile(min(tile.top + 2, 20 - 8), max(tile.left - 3, 0))

    seen = []

    def network(a, b):
        seen.append((a - b).abs().amax((1, 2, 3)))
        return a

    run(network, [Input(images), Input(moved, place=place)], (20, 30), (8, 8))
    assert (torch.cat(seen) == 0).sum() >= 4  # tiles whose place is inside, of both images


def test_where_tiles_disagree_the_nearer_middle_counts_more():
    """Left tile 0, right tile 1: the blend rises from one to the other without a seam."""
    parts = torch.stack([torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)])
    row = blend(parts, [Tile(0, 0), Tile(0, 6)], 8, 14)[0, 0, 3]
    assert (row[:6] == 0).all() and (row[8:] == 1).all()
    assert 0 < row[6] < 0.5 < row[7] < 1
