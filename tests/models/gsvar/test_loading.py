# GS-VAR's files: both layouts round trip, and everything that does not fit is refused in one
# sentence.
import json
import pickle
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models.gsvar import GSVARConfig, adapter, loading, original_d16, original_d24
from models.var.names import is_buffer

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared"


def same(a, b) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("ours", [{}, {"warped_references": True, "vqvae_patch": 2}])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_model_comes_back_as_it_was(build, tmp_path, suffix, ours, bridge):
    sizes = {"ref_attends": "self", "mixing_blocks": (1,), "patch_nums": "1_2_3x2_4x3"}
    model = build(bridge, **sizes, **ours)
    path = tmp_path / f"model{suffix}"
    (loading.save if suffix == ".safetensors" else loading.save_original)(model, path)
    loaded = loading.load(path)
    assert loaded.config == model.config
    assert loaded.has_bridge == bridge
    assert same(model, loaded)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


def test_files_of_torchs_old_format_are_read(build, tmp_path):
    model = build()
    content = adapter.to_original(model)
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(model, loading.load(tmp_path / "old.pth"))


def test_shared_adaln_and_no_qk_norm_round_trip(build, tmp_path):
    model = build(shared_adaln=True, qk_norm=False)
    loading.save_original(model, tmp_path / "m.pth")
    assert same(model, loading.load(tmp_path / "m.pth"))


def original_file(model, path, **changes):
    """The original's file as its own scripts would write it: without our config."""
    content = adapter.to_original(model, epoch=3, iteration=70)
    del content["trainer"]["config"]["gsvar"]
    for key, value in changes.items():
        content["trainer"][key] = value
    torch.save(content, path)
    return content


PLAIN = {"vqvae_groups": 8, "width": 128, "heads": 2}  # what the original's files cannot tell


def test_sizes_are_read_off_the_tensors(build, tmp_path):
    model = build(True, **PLAIN)
    content = original_file(model, tmp_path / "vae-ckpt-last.pth")
    original = adapter.recognize(content)
    sizes_read = adapter.known_sizes(original)
    ours = asdict(model.config)
    for field in sizes_read:
        if field != "drop_path":
            assert sizes_read[field] == ours[field], field
    assert (original.epoch, original.iteration) == (3, 70)
    del content["trainer"]["config"]
    assert adapter.known_sizes(adapter.recognize(content))["patch_nums"] == "1_2_3_4"


@pytest.mark.parametrize("depth", [16, 24])
def test_names_and_shapes_are_the_originals(depth):
    if not (SHARED / "keys").is_dir():
        pytest.skip("../shared/keys is not here")
    model = loading.empty(original_d24() if depth == 24 else original_d16(), bridge=True)
    for part, file in (("var", f"keys_gsvar_var_d{depth}"), ("vae", "keys_gsvar_vae")):
        keys = json.loads((SHARED / "keys" / f"{file}.json").read_text())["keys"]
        theirs = {
            k: torch.Size(v["shape"]).numel() for k, v in keys.items() if v["kind"] == "param"
        }
        ours = {
            adapter.foreign_name(name): tensor.numel()
            for name, tensor in model.state_dict().items()
            if name.startswith("vqvae.") == (part == "vae")
        }
        assert ours == theirs
        written = {k for k, v in keys.items() if v["kind"] != "param"}
        assert all(is_buffer(name) for name in written)


def test_a_varsr_file_with_its_mask_and_more_labels_takes_the_tokenizer_from_another(
    build, tmp_path
):
    model = build(labels=5, vqvae_groups=16, width=128, heads=2)
    content = adapter.to_original(model)
    var, vae = content["trainer"]["var_wo_ddp"], content["trainer"]["vae_local"]
    length = var["lvl_1L"].numel()
    var["attn_bias_for_masking"] = torch.zeros(1, 1, length, length)
    config = {"gsvar": content["trainer"]["config"]["gsvar"]}
    torch.save(
        {"epoch": 0, "iter": 0, "trainer": {"config": config, "var_wo_ddp": var}},
        tmp_path / "VARSR.pth",
    )
    torch.save({"trainer": {"vae_local": vae}}, tmp_path / "VQVAE.pth")
    loaded = loading.load(tmp_path / "VARSR.pth", vqvae=tmp_path / "VQVAE.pth")
    assert loaded.config.labels == 5
    assert same(model, loaded)
    with pytest.raises(ValueError, match=r"VARSR.pth holds no VQ-VAE.*vqvae"):
        loading.load(tmp_path / "VARSR.pth")
    with pytest.raises(ValueError, match=r"VQVAE.pth holds a VQ-VAE and no transformer"):
        loading.load(tmp_path / "VQVAE.pth")


def test_the_random_bridge_of_a_stage_1_file_is_left_out_and_said(build, tmp_path, caplog):
    content = adapter.to_original(build(True))
    content["trainer"]["var_opt"] = {"optimizer": {}}
    torch.save(content, tmp_path / "model.pth")
    caplog.set_level("INFO")
    assert not loading.load(tmp_path / "model.pth").has_bridge
    assert "untrained" in caplog.text


def test_bridge_and_tokenizer_from_a_stage_2_file_join_our_own(build, tmp_path):
    model, other = build(), build(True, seed=1)
    loading.save(model, tmp_path / "a.safetensors")
    for name in ("b.safetensors", "vae-ckpt-last.pth"):
        save = loading.save if name.endswith("s") else loading.save_original
        save(other, tmp_path / name)
        joined = loading.load(tmp_path / "a.safetensors", vqvae=tmp_path / name)
        assert same(joined.vqvae, other.vqvae)
        assert same(joined.transformer, model.transformer)


def test_lora_factors_go_on_a_base(build, tmp_path):
    model = build()
    loading.save(model, tmp_path / "base.safetensors")
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 32, generator=generator), torch.randn(64, 2, generator=generator)
    factors = {"blocks.1.attn.mat_qkv.lora_A": a, "blocks.1.attn.mat_qkv.lora_B": b}
    torch.save(
        {
            "trainer": {"var_wo_ddp": factors},
            "args": {"lora_alpha": 6, "lora_target_modules": "qv"},
        },
        tmp_path / "lora.pth",
    )
    with pytest.raises(ValueError, match="LoRA factors only"):
        loading.load(tmp_path / "lora.pth")
    loaded = loading.load(tmp_path / "lora.pth", base=tmp_path / "base.safetensors")
    before = model.transformer.blocks[1].attention.qkv.weight
    change = torch.zeros_like(before)
    change[:32], change[64:] = 3 * b[:32] @ a[:2], 3 * b[32:] @ a[2:]
    torch.testing.assert_close(loaded.transformer.blocks[1].attention.qkv.weight, before + change)
    assert same(loaded.transformer.blocks[0], model.transformer.blocks[0])
    factors["blocks.7.attn.proj.lora_A"] = a
    torch.save({"trainer": {"var_wo_ddp": factors}}, tmp_path / "lora.pth")
    with pytest.raises(ValueError, match=r"blocks.7"):
        loading.load(tmp_path / "lora.pth", base=tmp_path / "base.safetensors")


def test_every_misfit_is_listed(build, tmp_path):
    content = adapter.to_original(build())
    var = content["trainer"]["var_wo_ddp"]
    del var["word_embed.bias"]
    var["word_embed.weight"] = torch.zeros(3, 3)
    var["surprise"] = torch.zeros(1)
    var["blocks.0.attn.zero_k_bias"] = torch.ones(32)
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ValueError) as error:
        loading.load(tmp_path / "m.pth")
    for part in (
        "m.pth",
        "word_embed.bias is missing",
        "word_embed.weight is [3, 3]",
        "surprise is un",
        "not zero",
    ):
        assert part in str(error.value)


def test_depth_must_be_the_one_expected(build, tmp_path):
    loading.save(build(), tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="has depth 2, not depth=24"):
        loading.load(tmp_path / "m.safetensors", depth=24)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_nan_names_its_tensor(build, tmp_path, suffix):
    model = build()
    model.word.bias[3] = float("nan")
    path = tmp_path / f"m{suffix}"
    (loading.save if suffix == ".safetensors" else loading.save_original)(model, path)
    with pytest.raises(ValueError, match=r"word.bias.*NaN"):
        loading.load(path)


class Bomb:
    def __reduce__(self):
        return (open, ("bomb-went-off", "w"))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"trainer": Bomb()}, "bad.pth")
    Path("worse.pth").write_bytes(pickle.dumps(Bomb()))
    for name in ("bad.pth", "worse.pth"):
        with pytest.raises(ValueError, match=name):
            loading.load(name)
    assert not Path("bomb-went-off").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.999])
def test_truncated_files_are_told(build, tmp_path, suffix, keep):
    path = tmp_path / f"m{suffix}"
    (loading.save if suffix == ".safetensors" else loading.save_original)(build(), path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(ValueError, match=path.name):
        loading.load(path)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"trainer": {}},
        {"a": torch.zeros(2)},
        [1],
        {"splats": {"means": torch.zeros(2, 3)}, "step": 1},
    ],
)
def test_other_systems_files_are_told(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth is no GS-VAR checkpoint"):
        loading.load(tmp_path / "other.pth")


def test_a_config_of_nonsense_is_told(tmp_path):
    from safetensors.torch import save_file

    for config in ("{", '{"depht": 3}', '{"width": 33}'):
        save_file(
            {"a": torch.zeros(1)}, tmp_path / "m.safetensors", {"format": "gsvar", "config": config}
        )
        with pytest.raises(ValueError, match=r"m.safetensors: its config"):
            loading.load(tmp_path / "m.safetensors")


def test_configs_that_cannot_be_are_refused():
    for wrong in (
        {"heads": 5},
        {"vqvae_groups": 7},
        {"mixing_blocks": (99,)},
        {"ref_attends": "x"},
    ):
        with pytest.raises(ValueError):
            GSVARConfig(**wrong)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "models.checkpoints", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command_inspects_and_converts(build, tmp_path):
    loading.save_original(build(True), tmp_path / "vae-ckpt-last.pth", epoch=4)
    done = run("convert", tmp_path / "vae-ckpt-last.pth", tmp_path / "ours.safetensors")
    assert done.returncode == 0, done.stderr
    assert same(
        loading.load(tmp_path / "ours.safetensors"),
        loading.load(tmp_path / "vae-ckpt-last.pth"),
    )
    shown = run("inspect", tmp_path / "vae-ckpt-last.pth").stdout
    assert "depth: 2" in shown
    assert "bridge" in shown
    assert "epoch: 4" in shown
    assert "safetensors" in run("inspect", tmp_path / "ours.safetensors").stdout
    missing = run("inspect", tmp_path / "none.pth")
    assert missing.returncode == 2
    assert missing.stderr.startswith("error: ")
    wrong = run("convert", tmp_path / "vae-ckpt-last.pth", tmp_path / "ours.bin")
    assert wrong.returncode == 2
    assert "ours.bin" in wrong.stderr
