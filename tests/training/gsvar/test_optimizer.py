# Which parameters weight decay acts on: the original's two groups.
import pytest
import torch

from models.gsvar import GSVAR, loading
from models.gsvar.config import original_d24
from tests.training.conftest import sizes as sizes_of
from training.gsvar import building
from training.gsvar.flags import Model
from training.gsvar.stage import GSVARStage
from training.optimizer import split_parameters


@pytest.fixture(scope="module")
def original() -> GSVAR:
    return loading.empty(original_d24(), bridge=True)


def split(model):
    stage = GSVARStage(model, torch.float32)
    return split_parameters(stage.parameters_of("model"), stage.decays)


def sizes(groups):
    return [(len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups]


def test_the_groups_of_stage_1_are_the_original_s(original):
    building.prepare_latent(original, Model(), None)
    groups = split(original)
    assert [group["decays"] for group in groups] == [False, True]
    (few, small), (many, large) = sizes(groups)
    assert (few, many) == (245, 134)
    assert small == pytest.approx(38.7e6, abs=0.05e6)
    assert large == pytest.approx(1063.2e6, abs=0.05e6)
    assert small + large == 1_101_916_448


def test_the_groups_of_stage_2_are_the_original_s(original):
    original.requires_grad_(False)
    original.vqvae.bridge.requires_grad_(True)
    (few, small), (many, large) = sizes(split(original))
    assert (few, many) == (93, 41)
    assert small == pytest.approx(39.7e3, abs=0.05e3)
    assert large == pytest.approx(58.0e6, abs=0.05e6)
    assert small + large == 58_043_523


def test_each_parameter_goes_where_the_original_s_words_say(original):
    original.requires_grad_(True)
    named = dict(original.named_parameters())
    stage = GSVARStage(original, torch.float32)
    spared = [n for n, p in named.items() if not stage.decays(n, p)]
    assert {"prefix_position", "scale_embedding.weight", "refiner.output.weight"} <= set(spared)
    assert "transformer.blocks.23.attention.log_temperature" in spared
    for name in ("label.weight", "word.weight", "head.weight", "prefix.conv_in.weight"):
        assert name not in spared
    matrices = {n for n in spared if named[n].ndim > 1 and not n.startswith("refiner.")}
    assert matrices == {"prefix_position", "scale_embedding.weight"}


def test_shared_adaln_s_offsets_are_spared():
    model = loading.empty(sizes_of(shared_adaln=True), bridge=False)
    stage = GSVARStage(model, torch.float32)
    spared = [n for n, p in model.named_parameters() if not stage.decays(n, p)]
    assert "transformer.blocks.0.offset" in spared
    assert "transformer.shared_adaln.1.weight" not in spared
