# The fast convolutions of CPU inference against torch's in float64.
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.gsvar import GSVAR
from models.gsvar.config import tiny
from models.layers import winograd
from models.layers.conv import ResBlock, Upsample, norm_silu


def layers(C, K, groups=8, dtype=torch.float32):
    torch.manual_seed(0)
    norm, conv = nn.GroupNorm(groups, C, eps=1e-6), nn.Conv2d(C, K, 3, padding=1)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.to(dtype), conv.to(dtype)


@torch.no_grad()
@pytest.mark.parametrize(
    "shape", [(1, 32, 16, 16), (2, 40, 17, 23), (1, 32, 1, 300), (3, 48, 33, 64)]
)
@pytest.mark.parametrize("residual", [False, True])
def test_norm_silu_conv_is_as_exact_as_torchs(shape, residual):
    norm, conv = layers(shape[1], 56)
    x = torch.randn(shape) * 2 + 5
    added = torch.randn(shape[0], 56, *shape[2:]) if residual else None
    ours = winograd.norm_silu_conv(x, norm, conv, added)
    norm, conv = norm.double(), conv.double()
    exact = conv(F.silu(norm(x.double()))) + (added.double() if residual else 0)
    assert ours.shape == exact.shape
    assert (ours - exact).abs().max() < 5e-6 * exact.std()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_take_the_fast_path_and_agree_with_the_plain_one(dtype):
    torch.manual_seed(0)
    block = ResBlock(32, 64, 8).to(dtype)
    x = torch.randn(2, 32, 21, 18).to(dtype)
    assert winograd.usable(x, block.conv1)
    exact = block.double().plain(x.double())
    block = block.to(dtype)
    limit = 1e-5 if dtype == torch.float32 else 0.05
    assert (block(x) - exact).abs().max() < limit * exact.std()
    assert block(x).dtype == dtype


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (5, 8), (9, 16)])
def test_upsampling_is_four_small_convolutions(size):
    torch.manual_seed(0)
    up, x = Upsample(12), torch.randn(2, 12, *size)
    torch.testing.assert_close(up(x), up.plain(x), rtol=0, atol=1e-5)


@torch.no_grad()
def test_one_pass_norm_and_silu_in_bfloat16_rounds_like_torchs():
    norm, _ = layers(16, 16, dtype=torch.bfloat16)
    x = (torch.randn(2, 16, 9, 11) * 3 + 1).bfloat16()
    exact = F.silu(norm.double()(x.double()))
    norm = norm.bfloat16()
    ours = (norm_silu(norm, x).double() - exact).abs()
    assert (ours <= exact.abs() * 2**-8 + 1e-6).all()  # half a unit of the last place


@torch.no_grad()
def test_large_inputs_do_not_overflow():
    norm, _ = layers(8, 8)
    norm.weight.fill_(1e6)
    norm.bias.zero_()
    x = torch.randn(1, 8, 4, 4).to(memory_format=torch.channels_last)
    assert winograd.norm_silu(x, norm).isfinite().all()


def test_a_changed_weight_is_seen():
    norm, conv = layers(32, 32)
    x = torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        before = winograd.norm_silu_conv(x, norm, conv)
        conv.weight.mul_(2)
        conv.bias.mul_(2)
        torch.testing.assert_close(winograd.norm_silu_conv(x, norm, conv), 2 * before)


def test_training_and_small_layers_keep_to_torch():
    _, conv = layers(32, 32)
    x = torch.randn(1, 32, 16, 16)
    assert not winograd.usable(x, conv)  # gradients are on
    with torch.no_grad():
        assert winograd.usable(x, conv)
        assert not winograd.usable(x.double(), conv)
        assert not winograd.usable(x[:, :, :8], conv)
        assert not winograd.usable(x, layers(8, 32)[1])


def test_weights_that_an_optimiser_changed_unseen_are_seen_after_eval():
    torch.manual_seed(0)
    model = GSVAR(replace(tiny(), depth=1)).to(memory_format=torch.channels_last)
    latent = torch.randn(1, 16, 16, 16)
    decoder = model.vqvae.decoder.requires_grad_(True)
    optimiser = torch.optim.AdamW(decoder.parameters(), 1e-2, fused=True)
    for _ in range(2):
        model.eval()
        with torch.no_grad():
            fast = model.vqvae.decode(latent)
        slow = model.vqvae.decode(latent)
        torch.testing.assert_close(fast, slow.detach(), rtol=1e-3, atol=1e-4)
        slow.square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()


@torch.no_grad()
def test_torchs_threads_stay_as_they_were():
    norm, conv = layers(32, 32)
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            winograd.norm_silu_conv(torch.randn(1, 32, 32, 32), norm, conv)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 32, 19, 23), (1, 16, 1, 1), (3, 48, 40, 33)])
def test_the_gradients_of_norm_and_silu_are_torchs(shape, dtype):
    norm, _ = layers(shape[1], 8)
    torch.manual_seed(1)
    x, slope = ((torch.randn(shape) * 2 + 3).to(dtype) for _ in range(2))
    exact = nn.GroupNorm(8, shape[1], eps=1e-6).double()
    exact.load_state_dict(norm.state_dict())
    answers = []
    for module, start in ((norm, x), (exact, x.double())):
        start = start.clone().requires_grad_()
        out = winograd.norm_silu(start, module) if module is norm else F.silu(module(start))
        out.backward(slope.to(out.dtype))
        answers.append((out.detach(), start.grad, module.weight.grad, module.bias.grad))
    for ours, theirs in zip(*answers, strict=True):
        tolerance = 3e-6 if dtype == torch.float32 else 1e-2
        assert (ours - theirs).abs().max() <= tolerance * max(1, theirs.abs().max())
