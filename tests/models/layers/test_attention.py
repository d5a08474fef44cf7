# The attention core against the formula written out, and rotary positions.
import pytest
import torch

from models.layers.attention import attention, plain_attention
from models.layers.rope import rope_table, rotate


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_the_formula(masked):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 8, generator=generator, dtype=torch.float64) for n in (5, 7, 7))
    mask = torch.rand(5, 7, generator=generator) > 0.4 if masked else None
    if masked:
        mask[:, 0] = True
    ours = attention(q, k, v, mask, scale=0.7)
    torch.testing.assert_close(ours, plain_attention(q, k, v, mask, 0.7), rtol=0, atol=1e-12)


def test_rounded_logits_are_the_formula():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, n, 16, generator=generator).bfloat16() for n in (300, 520, 520))
    exact = plain_attention(q.double(), k.double(), v.double(), None, 0.25)
    ours = attention(q, k, v, scale=0.25, small=True)
    theirs = attention(q, k, v, scale=0.25)
    worst = [(out.double() - exact).abs().max().item() for out in (ours, theirs)]
    assert worst[0] < 0.005 and worst[1] < 0.005
    # with gradients, the same in one piece
    leaves = [t.clone().requires_grad_() for t in (q, k, v)]
    with torch.autocast("cpu", torch.bfloat16):
        whole = attention(*leaves, scale=0.25, small=True)
    assert whole.dtype == torch.bfloat16 and (whole.detach() - ours).abs().max() < 0.01
    whole.float().sum().backward()
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    plain_attention(*doubles, None, 0.25).sum().backward()
    for ours, exact in zip(leaves, doubles, strict=True):
        assert (ours.grad - exact.grad).norm() < 0.02 * exact.grad.norm() + 0.02


def test_tokens_that_see_nothing_extra_are_untouched_by_it():
    q, k, v = (torch.randn(1, 1, 4, 8) for _ in range(3))
    mask = torch.tensor([[True, True, False, False]]).expand(4, 4)
    before = attention(q, k, v, mask)
    k[:, :, 2:] += 5
    v[:, :, 2:] += 5
    assert torch.equal(before, attention(q, k, v, mask))


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    table = rope_table([(4, 4)], 8, extent=32.0)
    x, y = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    turned_x = rotate(x.expand(16, 1, 8), table)[:, 0].view(4, 4, 8)
    turned_y = rotate(y.expand(16, 1, 8), table)[:, 0].view(4, 4, 8)
    torch.testing.assert_close(turned_x.norm(dim=-1), x.norm().expand(4, 4))
    here = (turned_x[0, 1] * turned_y[1, 3]).sum()
    there = (turned_x[2, 0] * turned_y[3, 2]).sum()
    torch.testing.assert_close(here, there)


def test_scales_share_the_angles_of_a_place():
    """The corner of quadrant (1,1) has the same angles on a 2x2, a 4x4 and an 8x8 grid."""
    table = rope_table([(2, 2), (4, 4), (8, 8)], 8, extent=8.0)
    coarse, middle, fine = table[:, 3], table[:, 4 + 2 * 4 + 2], table[:, 20 + 4 * 8 + 4]
    torch.testing.assert_close(coarse, middle)
    torch.testing.assert_close(coarse, fine)


def test_angles_follow_the_formula():
    """Row 3, column 5 of an 8x8 grid over 32 units: 12 and 20 units."""
    cos, sin = rope_table([(8, 8)], 16, extent=32.0)[:, 3 * 8 + 5]
    frequencies = 10000.0 ** (-4 * torch.arange(4, dtype=torch.float64) / 16)
    angles = torch.cat((12 * frequencies, 20 * frequencies))
    torch.testing.assert_close(cos, angles.cos())
    torch.testing.assert_close(sin, angles.sin())


def test_a_head_width_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match="divisible by 4"):
        rope_table([(2, 2)], 6, extent=2.0)
