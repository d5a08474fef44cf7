# Checkpoints of any system: one that is registered is read, written and inspected by the same code.
import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints import registry, system
from models.checkpoints.io import read, write_pickle, write_tensors
from models.checkpoints.system import System
from models.gsvar import loading


@dataclass(frozen=True)
class ToyConfig:
    """Sizes of the toy."""

    width: int = 3


class Toy(nn.Module):
    """A system that no other knows of."""

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        self.layer = nn.Linear(config.width, 2)


class ToyAdapter:
    """Another project's toys: {"toy": weight, bias}."""

    def recognize(self, content):
        return isinstance(content, dict) and "toy" in content

    def load(self, path, content):
        weight, bias = content["toy"]
        toy = Toy(ToyConfig(weight.shape[1]))
        toy.load_state_dict({"layer.weight": weight, "layer.bias": bias})
        return toy

    def inspect(self, path, content):
        return {"file": str(path), "parts": {}, "config": {"width": content["toy"][0].shape[1]}}

    def export(self, model):
        return {"toy": [model.layer.weight.detach(), model.layer.bias.detach()]}


TOY = System("toy", "Toy", ToyConfig, lambda config, names: Toy(config), ToyAdapter(), ("layer.b",))


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(registry.SYSTEMS, "toy", TOY)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_registered_system_comes_back_in_both_layouts(registered, tmp_path, suffix):
    toy, path = Toy(ToyConfig(5)), tmp_path / f"toy{suffix}"
    system.export(registry.system_of(toy), toy, path)
    config, again = registry.load(path)
    assert config == ToyConfig(5)
    assert all(torch.equal(a, b) for a, b in zip(toy.parameters(), again.parameters(), strict=True))
    assert registry.inspect(path)["config"] == asdict(config)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_what_must_be_exact_is_not_rounded(tmp_path):
    toy = Toy(ToyConfig())
    system.save(TOY, toy, tmp_path / "toy.safetensors", dtype=torch.bfloat16)
    content, metadata = read(tmp_path / "toy.safetensors")
    assert content["layer.weight"].dtype == torch.bfloat16
    assert torch.equal(content["layer.bias"], toy.layer.bias)
    assert metadata["format"] == "toy"


def test_gs_var_is_loaded_with_its_config(build, tmp_path):
    model = build(True)
    loading.save(model, tmp_path / "ours.safetensors")
    loading.save_original(model, tmp_path / "theirs.pth")
    for name in ("ours.safetensors", "theirs.pth"):
        config, again = registry.load(tmp_path / name)
        assert config == model.config == again.config
        state = again.state_dict()
        assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())
        assert registry.inspect(tmp_path / name)["config"]["depth"] == config.depth


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_training_puts_around_weights_is_left_out(build, tmp_path, caplog, wrapper, prefix):
    model = build(True)
    loading.save_original(model, tmp_path / "theirs.pth")
    content, _ = read(tmp_path / "theirs.pth")
    trainer = content["trainer"]
    for part in ("var_wo_ddp", "vae_local"):
        trainer[part] = {f"{prefix}{name}": t for name, t in trainer[part].items()}
    write_pickle(tmp_path / "wrapped.pth", {wrapper: content, "args": {"epochs": 3}})
    with caplog.at_level("INFO"):
        _, again = registry.load(tmp_path / "wrapped.pth")
    assert f'"{wrapper}"' in caplog.text and prefix.split(".")[0] in caplog.text
    state = again.state_dict()
    assert all(torch.equal(t, state[k]) for k, t in model.state_dict().items())


def test_arguments_scalars_paths_and_devices_are_data(registered, tmp_path):
    toy = Toy(ToyConfig(3))
    content = TOY.adapter.export(toy) | {
        "args": argparse.Namespace(lr=0.1, names=["a"]),
        "best": np.float64(20.5),
        "count": np.int64(7),
        "out": Path("results/x"),
        "device": torch.device("cpu"),
    }
    torch.save(content, tmp_path / "toy.pth")
    data, _ = read(tmp_path / "toy.pth")
    assert data["args"] == {"lr": 0.1, "names": ["a"]}
    assert (data["best"], data["count"], data["out"]) == (20.5, 7, "results/x")
    registry.load(tmp_path / "toy.pth")
    torch.save(content | {"tool": ToyAdapter()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth contains code.*ToyAdapter"):
        registry.inspect(tmp_path / "code.pth")


def test_nothing_is_inspected_that_is_not_loaded(build, tmp_path):
    loading.save_original(build(True), tmp_path / "theirs.pth")
    content, _ = read(tmp_path / "theirs.pth")
    del content["trainer"]["var_wo_ddp"]["word_embed.weight"]
    write_pickle(tmp_path / "short.pth", content)
    for call in (registry.load, registry.inspect):
        with pytest.raises(ValueError, match=r"word.*missing"):
            call(tmp_path / "short.pth")
    del content["trainer"]["var_wo_ddp"]
    write_pickle(tmp_path / "vqvae.pth", content)
    assert "vae_local" in registry.inspect(tmp_path / "vqvae.pth")["parts"]


def test_a_file_of_no_system_is_refused(registered, tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {"format": "unheard of"})
    write_pickle(tmp_path / "b.pth", {"x": torch.zeros(1)})
    for name in ("a.safetensors", "b.pth"):
        with pytest.raises(ValueError, match=rf"{name} is no checkpoint of .*GS-VAR, .*Toy"):
            registry.load(tmp_path / name)


def test_what_does_not_fit_is_refused(registered, tmp_path):
    path = tmp_path / "toy.safetensors"
    texts = {"format": "toy", "config": '{"width": 3}'}
    write_tensors(path, {"layer.weight": torch.zeros(2, 4), "more": torch.zeros(1)}, texts)
    with pytest.raises(ValueError, match=r"layer.bias is missing; more is unexpected; layer.weig"):
        registry.load(path)
    toy = Toy(ToyConfig())
    with pytest.raises(ValueError, match=r"toy.bin: end the name in"):
        system.export(TOY, toy, tmp_path / "toy.bin")
