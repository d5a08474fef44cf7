# The original's files: names, shapes, what is dropped, what is refused.
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoints import registry
from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig, tiny
from models.efficient_lvsm import adapter as efficient
from models.lvsm import LVSM, LVSMConfig
from models.lvsm import adapter as lvsm
from models.lvsm.config import tiny as tiny_lvsm

KEYS = Path(__file__).parents[3].parent / "shared/keys/keys_efficient_lvsm.json"


@pytest.mark.skipif(not KEYS.is_file(), reason="../shared/keys is not here")
@pytest.mark.parametrize(
    ("name", "adapter", "config", "count"),
    [
        ("efficient_lvsm", efficient, EfficientLVSMConfig(), 199_070_208),
        ("lvsm_decoder_only", lvsm, LVSMConfig(), 170_795_520),
    ],
    ids=["efficient_lvsm", "lvsm"],
)
def test_names_and_shapes_are_the_original_s(name, adapter, config, count):
    expected = {
        pattern.replace("{i}", str(i)): value["shape"]
        for pattern, value in json.loads(KEYS.read_text())[name]["patterns"].items()
        for i in range(value["count"])
    }
    model = adapter.build(config)
    state = model.state_dict().items()
    assert {adapter.LAYOUT.foreign_name(k): list(t.shape) for k, t in state} == expected
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return {"efficient": EfficientLVSM(tiny()), "lvsm": LVSM(tiny_lvsm())}


def write(path, model, prefix="", **extra):
    """A training checkpoint as the original's trainer writes it."""
    layout = registry.system_of(model).adapter
    weights = {prefix + name: t for name, t in layout.export(model)["model"].items()}
    torch.save({"model": weights | extra, "optimizer": {}, "param_update_step": 3}, path)


@pytest.mark.parametrize("kind", ["efficient", "lvsm"])
def test_files_of_the_trainer_are_read(kind, models, tmp_path, caplog):
    extra = {"loss_computer.perceptual_loss_module.vgg.features.0.weight": torch.zeros(2)}
    write(tmp_path / "ckpt.pt", models[kind], "_orig_mod.", **extra)
    config, model = registry.load(tmp_path / "ckpt.pt")
    assert config == models[kind].config
    assert type(model) is type(models[kind])
    for name, tensor in models[kind].state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    parts = registry.inspect(tmp_path / "ckpt.pt")["parts"].values()
    parameters = sum(p.numel() for p in models[kind].parameters())
    assert sum(part["parameters"] for part in parts) == parameters


def test_the_original_s_files_do_not_tell_their_pictures_size(models, tmp_path):
    content = efficient.LAYOUT.export(models["efficient"])
    del content["model"][efficient.IMAGE_SIZE]
    torch.save(content, tmp_path / "ckpt.pt")
    config, _ = registry.load(tmp_path / "ckpt.pt")
    assert config == replace(models["efficient"].config, image_size=256)


def test_teachers_and_projectors_are_dropped(models, tmp_path):
    extra = {"repa_encoder.x": torch.zeros(2), "repa_projector.input.8.1.0.bias": torch.zeros(2)}
    write(tmp_path / "ckpt.pt", models["efficient"], **extra)
    registry.load(tmp_path / "ckpt.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("self_cross_blocks.0.mlp.mlp.0.weight"), "mlp.0.weight is missing"),
        (lambda w: w.update({"more.weight": torch.zeros(1)}), "more.weight is unexpected"),
        (lambda w: w.pop("target_pose_tokenizer.1.weight"), "target_pose_tokenizer.1.weight"),
        (
            lambda w: w.update({"image_token_decoder.1.weight": torch.zeros(192, 3)}),
            r"\[192, 3\] instead of \[192, 64\]",
        ),
        (lambda w: w["rgbp_tokenizer.1.weight"].fill_(float("nan")), "NaN or infinity"),
    ],
    ids=["missing", "unexpected", "no sizes", "shape", "nan"],
)
def test_what_does_not_fit_is_refused(change, message, models, tmp_path):
    weights = efficient.LAYOUT.export(models["efficient"])["model"]
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    change(weights)
    torch.save({"model": weights}, tmp_path / "ckpt.pt")
    with pytest.raises(ValueError, match=message) as error:
        registry.load(tmp_path / "ckpt.pt")
    assert str(tmp_path / "ckpt.pt") in str(error.value)


def test_our_files_have_the_config(models, tmp_path):
    for name, model in models.items():
        system = registry.system_of(model)
        path = tmp_path / f"{name}.safetensors"
        registry.layout.export(system, model, path, torch.bfloat16)
        config, again = registry.load(path)
        assert config == model.config
        for key, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], tensor.bfloat16().float()), key
