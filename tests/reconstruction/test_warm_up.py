# The warm-ups call kernels with the types that an optimisation uses, so that it compiles nothing.
from dataclasses import replace

import pytest
import torch

import reconstruction
from models.layers.conv import ResBlock
from models.layers.winograd import CONVOLUTIONS
from reconstruction.warm_up import OPTIMISATION
from runtime.precision import choose_dtype


def signatures(warm_ups) -> set[tuple]:
    """What its kernels are compiled for."""
    return {(k.py_func.__name__, s) for w in warm_ups for k in w.kernels for s in k.signatures}


@pytest.mark.parametrize("make", [reconstruction.default, reconstruction.mcmc])
def test_optimisation_needs_nothing_more(scene, make):
    for warm_up in OPTIMISATION:
        warm_up.call()
    before = signatures(OPTIMISATION)
    reconstruction.optimise(scene, replace(make(), max_steps=30))
    assert signatures(OPTIMISATION) == before


@torch.inference_mode()
def test_inference_needs_nothing_more():
    CONVOLUTIONS.call()
    before = signatures([CONVOLUTIONS])
    block = ResBlock(64, 32, groups=4).to(choose_dtype("auto", "cpu"))
    block(torch.zeros(1, 64, 17, 18, dtype=choose_dtype("auto", "cpu")))
    assert signatures([CONVOLUTIONS]) == before
