# Who decays: the original's two groups (gsvar.md 2.6 and 2.7), and what they do.
import pytest
import torch
from torch import nn

from models.gsvar import GSVAR, loading
from models.gsvar.config import original_d24
from tests.training.conftest import sizes as sizes_of
from training import building, optimiser
from training.flags import Model


@pytest.fixture(scope="module")
def original() -> GSVAR:
    return loading.empty(original_d24(), bridge=True)


def sizes(groups):
    return [(len(g["params"]), sum(p.numel() for p in g["params"])) for g in groups]


def test_the_groups_of_stage_1_are_the_original_s(original):
    building.prepare_latent(original, Model(), None)
    groups = optimiser.groups(original.named_parameters())
    assert [group["decays"] for group in groups] == [False, True]
    (few, small), (many, large) = sizes(groups)
    assert (few, many) == (245, 134)
    assert small == pytest.approx(38.7e6, abs=0.05e6)
    assert large == pytest.approx(1063.2e6, abs=0.05e6)
    assert small + large == 1_101_916_448


def test_the_groups_of_stage_2_are_the_original_s(original):
    original.requires_grad_(False)
    original.vqvae.bridge.requires_grad_(True)
    (few, small), (many, large) = sizes(optimiser.groups(original.named_parameters()))
    assert (few, many) == (93, 41)
    assert small == pytest.approx(39.7e3, abs=0.05e3)
    assert large == pytest.approx(58.0e6, abs=0.05e6)
    assert small + large == 58_043_523


def test_each_parameter_goes_where_the_original_s_words_say(original):
    original.requires_grad_(True)
    named = dict(original.named_parameters())
    spared = [n for n, p in named.items() if optimiser.is_spared(n, p)]
    assert {"prefix_position", "scale_embedding.weight", "refiner.output.weight"} <= set(spared)
    assert "transformer.blocks.23.attention.log_temperature" in spared
    for name in ("label.weight", "word.weight", "head.weight", "prefix.conv_in.weight"):
        assert name not in spared
    matrices = {n for n in spared if named[n].ndim > 1 and not n.startswith("refiner.")}
    assert matrices == {"prefix_position", "scale_embedding.weight"}


def test_shared_adaln_s_offsets_are_spared():
    model = loading.empty(sizes_of(shared_adaln=True), bridge=False)
    spared = [n for n, p in model.named_parameters() if optimiser.is_spared(n, p)]
    assert "transformer.blocks.0.offset" in spared
    assert "transformer.shared_adaln.1.weight" not in spared


def test_only_the_second_group_decays():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    before = {n: p.detach().clone() for n, p in layer.named_parameters()}
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    own = optimiser.make(layer.named_parameters(), kind="adamw", fused=True, rate=1.0)
    optimiser.set_rates(own, 0.1, 0.5)
    own.step()
    torch.testing.assert_close(layer.weight.detach(), before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, before["bias"])
    optimiser.set_rates(own, 0.2, 0.0)
    kept = layer.weight.detach().clone()
    own.step()
    assert torch.equal(layer.weight, kept)


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_a_step_is_the_formula_s(kind):
    """The first step moves by the rate along the gradient's sign; Adam puts decay into it."""
    weight = nn.Parameter(torch.tensor([[4.0, -4.0]]))
    weight.grad = torch.tensor([[-1.0, -1.0]])
    own = optimiser.make([("weight", weight)], kind=kind, fused=False, rate=0.01)
    optimiser.set_rates(own, 0.01, 0.5)
    own.step()
    # adamw: 4 * (1 - 0.005) + 0.01; adam: the gradients become 1 and -3
    expected = [[3.99, -3.97]] if kind == "adamw" else [[3.99, -3.99]]
    torch.testing.assert_close(weight.detach(), torch.tensor(expected))
    assert own.param_groups[0]["betas"] == (0.9, 0.95)


def test_frozen_parameters_have_no_place_and_none_at_all_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    own = optimiser.make(model.named_parameters(), kind="adamw", fused=True, rate=1.0)
    assert [len(group["params"]) for group in own.param_groups] == [1, 1]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is left to train"):
        optimiser.make(model.named_parameters(), kind="adamw", fused=True, rate=1.0)


def test_a_group_without_parameters_is_left_out_and_keeps_its_meaning():
    own = optimiser.make([("a", nn.Parameter(torch.ones(2, 2)))], kind="adam", fused=True, rate=1.0)
    optimiser.set_rates(own, 0.5, 0.25)
    (group,) = own.param_groups
    assert (group["lr"], group["weight_decay"], group["decays"]) == (0.5, 0.25, True)
