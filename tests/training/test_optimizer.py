# AdamW in two groups: what each does.
import pytest
import torch
from torch import nn

from training.optimizer import build_optimizer, set_rates


def test_only_the_second_group_decays():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    before = {n: p.detach().clone() for n, p in layer.named_parameters()}
    for p in layer.parameters():
        p.grad = torch.zeros_like(p)
    own = build_optimizer(layer.named_parameters(), kind="adamw", fused=True, rate=1.0)
    set_rates(own, 0.1, 0.5)
    own.step()
    torch.testing.assert_close(layer.weight.detach(), before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, before["bias"])
    set_rates(own, 0.2, 0.0)
    unchanged = layer.weight.detach().clone()
    own.step()
    assert torch.equal(layer.weight, unchanged)


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_a_step_is_the_formula_s(kind):
    """The first step moves by the rate along the gradient's sign; Adam puts decay into it."""
    weight = nn.Parameter(torch.tensor([[4.0, -4.0]]))
    weight.grad = torch.tensor([[-1.0, -1.0]])
    own = build_optimizer([("weight", weight)], kind=kind, fused=False, rate=0.01)
    set_rates(own, 0.01, 0.5)
    own.step()
    # adamw: 4 * (1 - 0.005) + 0.01; adam: the gradients become 1 and -3
    expected = [[3.99, -3.97]] if kind == "adamw" else [[3.99, -3.99]]
    torch.testing.assert_close(weight.detach(), torch.tensor(expected))
    assert own.param_groups[0]["betas"] == (0.9, 0.95)


def test_frozen_parameters_have_no_place_and_none_at_all_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    own = build_optimizer(model.named_parameters(), kind="adamw", fused=True, rate=1.0)
    assert [len(group["params"]) for group in own.param_groups] == [1, 1]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter is left to train"):
        build_optimizer(model.named_parameters(), kind="adamw", fused=True, rate=1.0)


def test_a_group_without_parameters_is_left_out_and_keeps_its_meaning():
    own = build_optimizer(
        [("a", nn.Parameter(torch.ones(2, 2)))], kind="adam", fused=True, rate=1.0
    )
    set_rates(own, 0.5, 0.25)
    (group,) = own.param_groups
    assert (group["lr"], group["weight_decay"], group["decays"]) == (0.5, 0.25, True)
