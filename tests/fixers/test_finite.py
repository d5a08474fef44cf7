# No answer with NaN or infinity leaves a fixer: half precision is widened, and it is said.
import importlib
import logging

import pytest
import torch

from fixers import unet
from fixers.fixer import finite_answer
from fixers.gsvar import GSVARFixer
from fixers.registry import FIXERS
from models.unet import UNet, tiny

RENDER = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))
GUIDE = torch.rand(1, 1, 32, 32, 3, generator=torch.Generator().manual_seed(1))


def grow(model, factor):
    """The same model, whose hidden states leave float16's range in the transformer."""
    with torch.no_grad():
        for block in model.transformer.blocks:
            block.mlp[2].weight.mul_(factor)
    return model


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_float16_that_overflows_is_redone_in_float32(model, caplog, dtype):
    expected = GSVARFixer(grow(model(), 1e5), bridge=False).fix(RENDER, GUIDE)
    f = GSVARFixer(grow(model(), 1e5).set_precision(dtype), bridge=False)
    with caplog.at_level(logging.WARNING):
        fixed = f.fix(RENDER, GUIDE)
    assert f.model.word.weight.dtype == torch.float32
    assert ("going on in float32" in caplog.text) == (dtype == torch.float16)
    assert (fixed - expected).abs().max() < 0.1  # of weights rounded to float16


def test_the_decoder_stays_out_of_float16(fixer):
    model = fixer().model.set_precision(torch.float16)
    assert {p.dtype for p in model.vqvae.parameters()} == {torch.float32}
    assert model.transformer.blocks[0].mlp[2].weight.dtype == torch.float16


def test_damaged_weights_are_a_sentence(fixer):
    f = fixer({"ref_attends": "self"}, bridge=True)
    with torch.no_grad():
        f.model.head.weight[0, 0] = float("nan")
        f.model.transformer.blocks[0].mlp[2].weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match="its weights are damaged"):
        f.fix(RENDER)


def test_infinity_is_not_hidden_by_clamping():
    net = UNet(tiny())
    with torch.no_grad():
        net.conv_out.bias.fill_(float("inf"))
    with pytest.raises(ValueError, match="its weights are damaged"):
        unet.UNetFixer(net).fix(RENDER)


@pytest.mark.parametrize("name", FIXERS)
def test_every_fixer_checks_its_answer(name):
    build = FIXERS[name][1]
    kind = getattr(importlib.import_module(build.__module__), build.__annotations__["return"])
    assert kind.fix.__code__ is finite_answer(lambda self: RENDER).__code__
