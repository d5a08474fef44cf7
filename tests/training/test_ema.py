# The average of the weights: its formula, the swap, and going on from a checkpoint bit by bit.
import copy

import pytest
import torch
from torch import nn

from training.ema import EMA


def network(seed=0) -> nn.Sequential:
    """Three trainable tensors and a frozen layer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    return model


def walk(model, steps, seed=1):
    """Changes the trainable weights, as an optimiser would; yields after each."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.add_(torch.randn(p.shape, generator=generator))
        yield


def state(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_the_formula():
    model = network()
    ema = EMA(model, 0.4)
    expected = {n: p.double() for n, p in state(model).items() if not n.startswith("2.")}
    for n, _ in enumerate(walk(model, 8)):
        ema.update()
        # 1/10, 2/11, 3/12, ... until 0.4 is reached
        decay = min(0.4, (1 + n) / (10 + n))
        live = state(model)
        expected = {k: decay * v + (1 - decay) * live[k].double() for k, v in expected.items()}
    assert ema.average.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(ema.average[name].double(), value, atol=1e-6, rtol=0)


def test_the_decay_is_reached_in_time():
    model = network()
    ema = EMA(model, 0.9)
    for _ in walk(model, 200):
        ema.update()
    before = ema.average["0.weight"].clone()
    with torch.no_grad():
        model[0].weight.copy_(before + 1)
    ema.update()
    torch.testing.assert_close(ema.average["0.weight"], before + 0.1)


def test_the_averages_are_used_for_a_while():
    model = network()
    ema = EMA(model, 0.9)
    for _ in walk(model, 3):
        ema.update()
    live, x = state(model), torch.randn(5, 3)
    before = model(x)
    with ema.used():
        inside = state(model)
        assert all(torch.equal(inside[name], ema.average[name]) for name in ema.average)
        assert torch.equal(inside["2.weight"], live["2.weight"])
        assert not torch.allclose(model(x), before)
    assert same(state(model), live)
    assert torch.equal(model(x), before)


def test_the_live_weights_come_back_after_an_error():
    model = network()
    ema = EMA(model, 0.9)
    for _ in walk(model, 3):
        ema.update()
    live, averages = state(model), copy.deepcopy(ema.average)
    with pytest.raises(ValueError, match="in between"), ema.used():
        raise ValueError("in between")
    assert same(state(model), live)
    assert same(ema.average, averages)
    # and are the optimiser's own still
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    with ema.used():
        pass
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    assert not same(state(model), live)
    assert same(ema.average, averages)


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_resumed_average_goes_on_bit_by_bit(stop, tmp_path):
    """As the loop saves it: the averages in the model, the live weights beside it."""
    whole = network()
    own = EMA(whole, 0.5)
    steps = walk(whole, 9)
    for _ in range(stop):
        next(steps)
        own.update()
    with own.used():
        saved = copy.deepcopy(whole.state_dict())
    torch.save({"model": saved, "ema": own.state_dict()}, tmp_path / "x.pth")
    for _ in steps:
        own.update()

    saved = torch.load(tmp_path / "x.pth", weights_only=True)
    again = network(seed=5)
    again.load_state_dict(saved["model"])
    resumed = EMA(again, 0.5)
    resumed.load_state_dict(saved["ema"])
    assert resumed.updates == stop
    scratch = network()
    changes = walk(scratch, 9)
    for n in range(9):  # the same changes, those before the stop not again
        before = state(scratch)
        next(changes)
        if n < stop:
            continue
        with torch.no_grad():
            for name, p in again.named_parameters():
                if p.requires_grad:
                    live = dict(scratch.named_parameters())[name]
                    assert torch.equal(p, before[name])
                    p.copy_(live)
        resumed.update()
    assert same(state(again), state(whole))
    assert same(resumed.average, own.average)


def test_another_model_s_state_is_refused():
    ema = EMA(network(), 0.9)
    with pytest.raises(KeyError):
        ema.load_state_dict({"updates": 1, "live": {}})
