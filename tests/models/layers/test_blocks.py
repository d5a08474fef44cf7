# Attention and blocks in every variant against torch's own or the formula written out, in float64.
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.layers.attention import plain_attention
from models.layers.blocks import AdaLNBlock, FeedForward, PreNormBlock
from models.layers.multihead import CrossAttention, SelfAttention, attend_all
from models.layers.qk_norm import RMSNorm, ScaledDot, UnitNorm
from models.layers.rope import rope_table, rotate
from models.layers.slot_cache import SlotCache

WIDTH, HEADS, HEAD = 24, 3, 8
NORMS = [ScaledDot(), ScaledDot(0.25), RMSNorm(1e-5), RMSNorm(1e-2), UnitNorm()]


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, nothing left at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=p.dtype) / WIDTH**0.5
    return module


def tokens(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (HEADS, HEAD)).transpose(-2, -3)  # [...,H,L,d]


def normalised(norm, q, k, attention):
    """The formulas of `qk_norm` for q, k [...,H,L,d], without the module."""
    if isinstance(norm, ScaledDot):
        return q * norm.factor / math.sqrt(HEAD), k
    if isinstance(norm, RMSNorm):
        q = F.rms_norm(q, (HEAD,), attention.q_weight, norm.eps) / math.sqrt(HEAD)
        return q, F.rms_norm(k, (HEAD,), attention.k_weight, norm.eps)
    temperature = attention.log_temperature.clamp(max=math.log(100)).exp().view(HEADS, 1, 1)
    q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
    return q * temperature, k


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_self_attention_is_the_formula(norm, bias):
    ours = filled(SelfAttention(WIDTH, HEADS, norm, qv_bias=bias, proj_bias=bias))
    x = tokens(2, 4, 7, WIDTH)
    q, k, v = (x @ ours.qkv.weight.T).chunk(3, -1)
    if bias:
        q, v = q + ours.q_bias, v + ours.v_bias
    q, k = normalised(norm, heads(q), heads(k), ours)
    out = plain_attention(q, k, heads(v)).transpose(-2, -3).flatten(-2)
    expected = F.linear(out, ours.proj.weight, ours.proj.bias)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-12)
    assert (ours.q_bias is not None) == (ours.proj.bias is not None) == bias


def test_without_norm_it_is_torch_s_own():
    ours = filled(SelfAttention(WIDTH, HEADS, ScaledDot()))
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    theirs.in_proj_weight.data = ours.qkv.weight.data
    zeros = torch.zeros(WIDTH, dtype=torch.float64)
    theirs.in_proj_bias.data = torch.cat((ours.q_bias.data, zeros, ours.v_bias.data))
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x = tokens(2, 7, WIDTH)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], rtol=0, atol=1e-12)


def test_rotary_positions_turn_normalised_queries_and_keys():
    ours = filled(SelfAttention(WIDTH, HEADS, UnitNorm()))
    x, table = tokens(2, 6, WIDTH), rope_table([(2, 3)], HEAD, extent=3.0)
    q, k, v = F.linear(x, ours.qkv.weight).chunk(3, -1)
    q, k = normalised(UnitNorm(), heads(q + ours.q_bias), heads(k), ours)
    turned = (rotate(t.transpose(1, 2), table).transpose(1, 2) for t in (q, k))
    out = plain_attention(*turned, heads(v + ours.v_bias)).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(ours(x, table), ours.proj(out), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_cross_attention_is_the_formula(norm):
    ours = filled(CrossAttention(WIDTH, HEADS, norm, context_width=10, qkv_bias=True))
    x, context = tokens(2, 4, 5, WIDTH), tokens(2, 9, 10, seed=2)
    k, v = ours.kv(context).chunk(2, -1)
    q, k = normalised(norm, heads(ours.q(x)), heads(k)[:, None], ours)
    out = plain_attention(q, k, heads(v)[:, None]).transpose(-2, -3).flatten(-2)
    torch.testing.assert_close(ours(x, *ours.project(context)), ours.proj(out), rtol=0, atol=1e-12)


def test_cross_attention_is_torch_s_own():
    ours = filled(CrossAttention(WIDTH, HEADS, context_width=10, qkv_bias=True))
    theirs = nn.MultiheadAttention(WIDTH, HEADS, kdim=10, vdim=10, batch_first=True).double()
    theirs.q_proj_weight.data = ours.q.weight.data
    theirs.k_proj_weight.data, theirs.v_proj_weight.data = ours.kv.weight.data.chunk(2)
    theirs.in_proj_bias.data = torch.cat((ours.q.bias.data, ours.kv.bias.data))
    theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x, context = tokens(2, 5, WIDTH), tokens(2, 9, 10, seed=2)
    expected = theirs(x, context, context)[0]
    torch.testing.assert_close(ours(x, *ours.project(context)), expected, rtol=0, atol=1e-12)


def test_a_context_of_views_can_be_joined_in_a_cache():
    """Keys and values of each view, computed alone, are those of the views together."""
    ours = filled(CrossAttention(WIDTH, HEADS, RMSNorm()))
    x, views = tokens(2, 5, WIDTH), tokens(2, 3, 4, WIDTH, seed=2)
    cache = SlotCache.empty(2, HEADS, 12, HEAD, dtype=torch.float64)
    for number, view in enumerate(views.unbind(1)):
        cache.add(number, *ours.project(view))
    together = ours(x, *ours.project(views.flatten(1, 2)))
    torch.testing.assert_close(ours(x, *cache.read()), together, rtol=0, atol=1e-12)


def test_in_bfloat16_the_rms_norm_rounds_before_the_weight():
    """As LVSM's: float32 inside, then the input's type."""
    norm, x = RMSNorm(1e-5), tokens(4, HEADS, HEAD).bfloat16()
    weight = tokens(HEAD, seed=3).bfloat16()
    exact = x.float() * (x.float().square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    assert torch.equal(norm.keys(x, {"k_weight": weight}), exact.bfloat16() * weight)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("gelu", lambda h: h * (1 + torch.erf(h / math.sqrt(2))) / 2),
        (
            "gelu_tanh",
            lambda h: h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))) / 2,
        ),
        ("geglu", lambda h: h[..., :40] * h[..., 40:] * (1 + torch.erf(h[..., 40:] / 2**0.5)) / 2),
    ],
)
def test_feed_forward_is_the_formula(activation, formula, bias):
    mlp, x = filled(FeedForward(WIDTH, 40, activation, bias)), tokens(3, 5, WIDTH)
    names = {"0.weight", "2.weight"} | ({"0.bias", "2.bias"} if bias else set())
    assert {name for name, _ in mlp.named_parameters()} == names
    hidden = formula(F.linear(x, mlp[0].weight, mlp[0].bias))
    expected = F.linear(hidden, mlp[2].weight, mlp[2].bias)
    torch.testing.assert_close(mlp(x), expected, rtol=0, atol=1e-12)


LAYER_NORMS = {
    "affine": nn.LayerNorm,
    "weight only": partial(nn.LayerNorm, bias=False),
    "none": partial(nn.LayerNorm, elementwise_affine=False),
    "eps": partial(nn.LayerNorm, eps=1e-1),
}


@pytest.mark.parametrize("norm", LAYER_NORMS)
def test_a_plain_block_is_torch_s_encoder_layer(norm):
    make = LAYER_NORMS[norm]
    ours = PreNormBlock(WIDTH, SelfAttention(WIDTH, HEADS), FeedForward(WIDTH, 40), norm=make)
    ours = filled(ours)
    theirs = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 40, 0.0, F.gelu, batch_first=True, norm_first=True
    ).double()
    theirs.norm1, theirs.norm2 = ours.norm1, ours.norm2
    copy_attention(ours.attention, theirs.self_attn)
    theirs.linear1, theirs.linear2 = ours.mlp[0], ours.mlp[2]
    x = tokens(2, 7, WIDTH)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_a_plain_block_with_context_is_torch_s_decoder_layer():
    ours = PreNormBlock(
        WIDTH,
        SelfAttention(WIDTH, HEADS),
        FeedForward(WIDTH, 40),
        cross=CrossAttention(WIDTH, HEADS, qkv_bias=True),
    )
    ours = filled(ours)
    theirs = nn.TransformerDecoderLayer(
        WIDTH, HEADS, 40, 0.0, F.gelu, batch_first=True, norm_first=True
    ).double()
    theirs.norm1, theirs.norm2, theirs.norm3 = ours.norm1, ours.norm_cross, ours.norm2
    copy_attention(ours.attention, theirs.self_attn)
    cross = theirs.multihead_attn
    cross.in_proj_weight.data = torch.cat((ours.cross.q.weight.data, ours.cross.kv.weight.data))
    cross.in_proj_bias.data = torch.cat((ours.cross.q.bias.data, ours.cross.kv.bias.data))
    cross.out_proj.load_state_dict(ours.cross.proj.state_dict())
    theirs.linear1, theirs.linear2 = ours.mlp[0], ours.mlp[2]
    x, context = tokens(2, 7, WIDTH), tokens(2, 9, WIDTH, seed=2)
    mine = ours(x, ours.cross.project(context))
    torch.testing.assert_close(mine, theirs(x, context), rtol=0, atol=1e-12)


def copy_attention(ours: SelfAttention, theirs: nn.MultiheadAttention) -> None:
    """Put our self-attention's weights into torch's."""
    theirs.in_proj_weight.data = ours.qkv.weight.data
    zeros = torch.zeros_like(ours.q_bias.data)
    theirs.in_proj_bias.data = torch.cat((ours.q_bias.data, zeros, ours.v_bias.data))
    theirs.out_proj.load_state_dict(ours.proj.state_dict())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_modulated_block_is_the_formula(norm, shared):
    mlp = FeedForward(WIDTH, 40, "gelu_tanh")
    ours = filled(AdaLNBlock(WIDTH, SelfAttention(WIDTH, HEADS, norm), mlp, shared=shared))
    x, condition = tokens(2, 3, 5, WIDTH), tokens(2, 3, WIDTH, seed=2)
    common = tokens(2, 3, 6, WIDTH, seed=3)
    if shared:
        six = common + ours.offset
    else:
        six = F.linear(F.silu(condition), ours.adaln[1].weight, ours.adaln[1].bias)
        six = six.unflatten(-1, (6, WIDTH))
    gate1, gate2, scale1, scale2, shift1, shift2 = (t[:, :, None] for t in six.unbind(-2))

    def normed(h, scale, shift):
        h = (h - h.mean(-1, keepdim=True)) / (h.var(-1, False, keepdim=True) + 1e-6).sqrt()
        return h * (1 + scale) + shift

    expected = x + gate1 * ours.attention(normed(x, scale1, shift1))
    expected = expected + gate2 * mlp(normed(expected, scale2, shift2))
    modulation = ours.modulation(condition, common if shared else None)
    torch.testing.assert_close(ours(x, modulation, None, attend_all), expected, rtol=0, atol=1e-12)


def test_drop_path_leaves_branches_out_as_the_noise_says():
    mlp = FeedForward(WIDTH, 40)
    block = filled(AdaLNBlock(WIDTH, SelfAttention(WIDTH, HEADS), mlp, drop_path=0.4)).train()
    h = tokens(3, 2, 5, WIDTH)
    dropped = block.drop(h, torch.tensor([0.1, 0.59, 0.61], dtype=torch.float64))
    torch.testing.assert_close(dropped[:2], h[:2] / 0.6)
    assert not dropped[2].any()
    assert torch.equal(block.eval().drop(h, None), h)


def test_a_width_that_does_not_split_into_heads_is_refused():
    with pytest.raises(ValueError, match="does not split into 5 heads"):
        SelfAttention(24, 5)
