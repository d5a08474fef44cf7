# Convolutional blocks: group norm in both layouts, attention over places, shapes.
import torch
import torch.nn.functional as F

from models.layers.conv import Downsample, GroupNorm, SpatialAttention, Upsample


def test_group_norm_is_as_exact_channels_last_as_contiguous():
    x = torch.randn(2, 24, 16, 16) * 3 + 50  # a large mean is where naive variances fail
    norm = GroupNorm(8, 24, eps=1e-6)
    torch.nn.init.normal_(norm.weight)
    exact = F.group_norm(x.double(), 8, norm.weight.double(), norm.bias.double(), 1e-6)
    for layout in (torch.contiguous_format, torch.channels_last):
        error = (norm(x.to(memory_format=layout)) - exact).abs().max() / exact.std()
        assert error < 2e-5


def test_gradients_of_group_norm_do_not_depend_on_the_layout():
    norm = GroupNorm(4, 8, eps=1e-6)
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        x = torch.randn(1, 8, 5, 5).to(memory_format=layout).requires_grad_()
        norm(x).square().mul(torch.arange(5.0)).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


def test_spatial_attention_is_single_head_attention_over_all_places():
    block = SpatialAttention(8, 4).double()
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    q, k, v = block.qkv(block.norm(x)).flatten(2).chunk(3, 1)  # [B,C,hw]
    weights = (q.transpose(1, 2) @ k * 8**-0.5).softmax(-1)
    out = (v @ weights.transpose(1, 2)).view_as(x)
    torch.testing.assert_close(block(x), x + block.proj(out))


def test_down_and_up_halve_and_double():
    x = torch.randn(1, 4, 8, 6)
    assert Downsample(4)(x).shape == (1, 4, 4, 3)
    assert Upsample(4)(x).shape == (1, 4, 16, 12)
