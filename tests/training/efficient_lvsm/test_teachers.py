# REPA's teachers as Hugging Face lays them out and as they were published, with random weights, and
# runs that learn from them.
import json
import signal

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from models.checkpoints import registry
from models.checkpoints.io import read
from runtime.interrupts import Stopped
from tests.training.efficient_lvsm.test_training import run
from tests.training.test_stopping import signal_in
from training.efficient_lvsm.commands import train_views
from training.efficient_lvsm.flags import parse
from training.efficient_lvsm.stage import ViewStage
from training.efficient_lvsm.teachers import load_teacher

PARTS = {"dinov2": ("query", "key", "value"), "dinov3_vit": ("q_proj", "k_proj", "v_proj")}
SIZES = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folders of small ones."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    two = transformers.Dinov2Config(**SIZES, image_size=28, patch_size=14, mlp_ratio=2)
    three = transformers.DINOv3ViTConfig(
        **SIZES, patch_size=16, intermediate_size=32, num_register_tokens=4
    )
    networks = {"dinov2": transformers.Dinov2Model(two)}
    networks["dinov3_vit"] = transformers.DINOv3ViTModel(three)
    folder = tmp_path_factory.mktemp("teachers")
    for name, network in networks.items():
        network.save_pretrained(folder / name)
    return folder, networks


@pytest.mark.parametrize(("name", "side", "patch"), [("dinov2", 336, 14), ("dinov3_vit", 512, 16)])
def test_tokens_are_the_blocks_outputs(teachers, name, side, patch):
    folder, networks = teachers
    network, seen = networks[name].eval(), {}
    layers = next(m for m in network.modules() if isinstance(m, torch.nn.ModuleList))

    def keep(module, inputs, output):
        seen[2] = output if isinstance(output, torch.Tensor) else output[0]

    handle = layers[1].register_forward_hook(keep)
    images = torch.rand(2, 3, 32, 32)
    pixels = F.interpolate(images, (side, side), mode="bicubic")
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    with torch.no_grad():
        network((pixels - mean) / std)
    handle.remove()
    teacher = load_teacher(folder / name, [2])
    assert sum("mlp" in n and "weight" in n for n, _ in teacher.named_parameters()) < 6  # 2 blocks
    grid = side // patch
    tokens = teacher(images, [2], (grid, grid))[2]
    assert torch.allclose(tokens, seen[2][:, -grid * grid :], atol=1e-5)
    smaller = teacher(images, [2], (4, 3))[2]
    planes = tokens.transpose(1, 2).unflatten(2, (grid, grid))
    expected = F.interpolate(planes, (4, 3), mode="bicubic").flatten(2).transpose(1, 2)
    assert torch.allclose(smaller, expected, atol=1e-5)


def publish(tensors, name):
    """The tensors of a folder of the library as the published files have them."""
    content = {}
    for key, tensor in tensors.items():
        key = key.removeprefix("embeddings.").replace("encoder.layer.", "blocks.")
        for ours, published in (
            ("position_embeddings", "pos_embed"),
            ("patch_embeddings.projection", "patch_embed.proj"),
            ("patch_embeddings", "patch_embed.proj"),
            ("register_tokens", "storage_tokens"),
            ("layernorm", "norm"),
            ("attention.output.dense", "attn.proj"),
            ("attention.attention", "attn"),
            ("attention.o_proj", "attn.proj"),
            ("attention.", "attn."),
            ("up_proj", "fc1"),
            ("down_proj", "fc2"),
            ("layer_scale1.lambda1", "ls1.gamma"),
            ("layer_scale2.lambda1", "ls2.gamma"),
        ):
            key = key.replace(ours, published)
        content["blocks" + key[5:] if key.startswith("layer.") else key] = tensor
    for block in range(SIZES["num_hidden_layers"]):
        for part in ("weight", "bias"):
            taken = [
                content.pop(f"blocks.{block}.attn.{letter}.{part}", torch.ones(128))
                for letter in PARTS[name]
            ]
            content[f"blocks.{block}.attn.qkv.{part}"] = torch.cat(taken)
    if name == "dinov3_vit":
        content["rope_embed.periods"] = torch.ones(16)
        content |= {f"blocks.{b}.attn.qkv.bias_mask": torch.ones(384) for b in range(3)}
    return content


@pytest.mark.parametrize("name", ["dinov2", "dinov3_vit"])
def test_published_files_are_read_too(teachers, tmp_path, name):
    folder = teachers[0] / name
    content = publish(load_file(folder / "model.safetensors"), name)
    torch.save(content, tmp_path / "published.pth")
    images = torch.rand(1, 3, 32, 32)
    expected = load_teacher(folder, [1, 3])(images, [1, 3], (4, 4))
    tokens = load_teacher(tmp_path / "published.pth", [1, 3])(images, [1, 3], (4, 4))
    assert all(torch.equal(tokens[block], expected[block]) for block in (1, 3))
    del content["blocks.0.mlp.fc1.weight"]
    torch.save(content, tmp_path / "gated.pth")
    with pytest.raises(ValueError, match=r"gated\.pth is none of the published files"):
        load_teacher(tmp_path / "gated.pth", [1])
    content["blocks.0.mlp.fc1.weight"] = content.pop("blocks.1.mlp.fc1.weight")
    torch.save(content, tmp_path / "torn.pth")
    with pytest.raises(ValueError, match=r"torn\.pth lacks weights, such as .*layer\.1\.mlp"):
        load_teacher(tmp_path / "torn.pth", [2])


def test_a_stopped_run_goes_on_bit_for_bit_with_its_projectors(
    captures, teachers, tmp_path, monkeypatch
):
    flags = ("--repeats=8", "--eval_freq=99", "--wp=0", "--steps=3", "--projector_dim=8")
    flags += ("--repa=2-1", f"--teacher={teachers[0] / 'dinov2'}", "--image_size=16")
    run(captures, tmp_path / "whole", *flags)
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        signal_in(patch, ViewStage, "after_step", 1, signal.SIGTERM)
        run(captures, tmp_path / "parts", *flags)
    run(captures, tmp_path / "parts", *flags)
    files = [tmp_path / n / "VARSR" / "lvsm-ckpt-last.pth" for n in ("whole", "parts")]
    whole, parts = (torch.load(file)["model"] for file in files)
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    for stream in ("input", "target"):
        assert whole[f"repa_projector.{stream}.2.1.0.weight"].shape == (8, 64)
    assert not any("network" in name for name in whole)
    _, model = registry.load(files[0])  # inference has no use for them
    assert not any("repa" in name for name in model.state_dict())
    assert read(files[0]) is not None
    lines = (tmp_path / "whole" / "VARSR" / "metrics.jsonl").read_text().splitlines()
    assert all(row["repa"] > 0 for row in map(json.loads, lines) if row["kind"] == "train")


def test_mistakes_are_one_sentence(teachers, tmp_path):
    folder = teachers[0]
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert", "num_hidden_layers": 2}')
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text((folder / "dinov2/config.json").read_text())
    for flags, message in (
        (("--repa=2-1",), "--repa=2-1 needs --teacher=PATH"),
        ((f"--teacher={folder / 'dinov2'}",), "needs --repa"),
        (("--repa=2-9", f"--teacher={folder / 'dinov2'}"), "the network has layers 1 to 2"),
        (("--repa=9-1", f"--teacher={folder / 'dinov2'}"), "block 9 of .*, which has 1 to 3"),
        (("--repa=02-12", f"--teacher={folder / 'dinov2'}"), "asks for block 0 of"),
        (("--repa=2-1", f"--teacher={tmp_path / 'absent.pth'}"), "has no config.json"),
        (("--repa=2-1", f"--teacher={tmp_path}"), r"has no config.json \(--teacher\)"),
        (("--repa=2-1", f"--teacher={tmp_path / 'bert'}"), "is a bert, not dinov2"),
        (("--repa=2-1", f"--teacher={tmp_path / 'bare'}"), "has no model.safetensors"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            train_views(parse(["--preset=tiny", "--captures=x", *flags]))
