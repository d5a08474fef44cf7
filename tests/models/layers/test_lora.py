# LoRA as a parametrization: no change at the start, the formula after, and merged away.
import pytest
import torch
from torch import nn

from models.layers.lora import add_lora, merge_lora


def test_a_fresh_adaptation_changes_nothing_and_trains_only_its_factors():
    layer = nn.Linear(6, 9)
    before = layer.weight.detach().clone()
    add_lora(layer, rank=2, alpha=4, parts=(True, False, True))
    assert torch.equal(layer.weight, before)
    layer(torch.randn(3, 6)).sum().backward()
    trained = {
        name for name, p in layer.named_parameters() if p.requires_grad and p.grad is not None
    }
    assert trained == {"bias", "parametrizations.weight.0.a", "parametrizations.weight.0.b"}


@pytest.mark.parametrize("parts", [(True,), (True, False, True)])
def test_the_change_is_scaling_times_b_a_and_merging_keeps_it(parts):
    layer = nn.Linear(6, 9)
    before = layer.weight.detach().clone()
    lora = add_lora(layer, rank=2, alpha=6, parts=parts)
    nn.init.normal_(lora.b)
    expected = before.clone().chunk(len(parts))
    for block, (i, _) in enumerate((i, on) for i, on in enumerate(parts) if on):
        expected[i].add_(3.0 * lora.b[block].detach() @ lora.a[block].detach())
    torch.testing.assert_close(layer.weight, torch.cat(expected))
    merge_lora(layer)
    assert isinstance(layer.weight, nn.Parameter)
    torch.testing.assert_close(layer.weight.detach(), torch.cat(expected))
