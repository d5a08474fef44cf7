# Low-rank factors: how many there are, the original's names and shapes, there and back.
import copy

import pytest
import torch

from models.gsvar import adapter, loading
from models.gsvar.config import original_d24
from models.gsvar.lora import add_lora


def trained(model, seed=0):
    """Factors that change something, as after a training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator) / 4)
    return model


def adapted(build, targets="qv", rank=3, alpha=6, seed=0):
    model = build()
    add_lora(model, rank, alpha, targets)
    return trained(model, seed)


@pytest.mark.parametrize(
    ("targets", "count"),
    # (16 C + 16 C) for each of q, k, v and o of 24 blocks, C 1536
    [("qv", 2_359_296), ("q", 1_179_648), ("qkvo", 4_718_592), ("o", 1_179_648)],
)
def test_the_original_s_number_of_factors(targets, count):
    model = loading.empty(original_d24(), bridge=False)
    add_lora(model, 16, 32, targets)
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trainable.values()) == count
    assert all(n.startswith("transformer.blocks.") for n in trainable)


def test_the_original_s_names_and_shapes():
    with torch.device("meta"):
        model = loading.empty(original_d24(), bridge=False)
        add_lora(model, 16, 32, "qvo")
    model.transformer.to_empty(device="cpu")
    tensors = adapter.lora_tensors(model)
    assert len(tensors) == 24 * 4
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if name.startswith("blocks.23.")}
    assert shapes == {
        "blocks.23.attn.mat_qkv.lora_A": (32, 1536),
        "blocks.23.attn.mat_qkv.lora_B": (3072, 16),
        "blocks.23.attn.proj.lora_A": (16, 1536),
        "blocks.23.attn.proj.lora_B": (1536, 16),
    }


def test_adapting_changes_nothing_at_first_and_the_named_parts_later(build):
    model = build()
    qkv = model.transformer.blocks[0].attention.qkv
    before = qkv.weight.clone()
    add_lora(model, 4, 8, "qk")
    assert torch.equal(qkv.weight, before)
    trained(model)
    q, k, v = (qkv.weight - before).chunk(3)
    assert q.abs().max() > 0.1
    assert k.abs().max() > 0.1
    assert not v.any()
    lora = qkv.parametrizations.weight[0]
    torch.testing.assert_close(k, 8 / 4 * lora.b[1] @ lora.a[1])


@pytest.mark.parametrize("targets", ["qv", "k", "o", "qkvo", "vo"])
def test_factors_come_back_from_the_original_s_layout(build, images, tmp_path, targets):
    model = adapted(build, targets)
    args = {"lora_alpha": 6, "lora_target_modules": targets}
    tensors = adapter.lora_tensors(model)
    assert adapter.is_lora(tensors)

    views, inputs = images(1, 2, 3, 32, 32), images(1, 2, model.config.scales.length - 1, 8)
    with torch.no_grad():
        expected, plain = model(views, inputs), build()(views, inputs)
        assert not torch.allclose(expected, plain, atol=1e-2)
        for merge in (True, False):
            again = build()
            adapter.put_lora(again, tensors, args, merge=merge)
            torch.testing.assert_close(again(views, inputs), expected, atol=1e-5, rtol=1e-5)
            assert (len(adapter.lora_tensors(again)) == 0) is merge

    # and as a file, on its base
    loading.save(build(), tmp_path / "base.safetensors")
    torch.save({"trainer": {"var_wo_ddp": tensors}, "args": args}, tmp_path / "lora.pth")
    loaded = loading.load(tmp_path / "lora.pth", base=tmp_path / "base.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(loaded(views, inputs), expected, atol=1e-5, rtol=1e-5)


def test_factors_go_into_a_model_that_is_adapted_already(build):
    """As a resumed run puts them: into its own, which are trained on."""
    source, model = adapted(build, "qvo"), adapted(build, "qvo", seed=1)
    own = {n: p for n, p in model.named_parameters() if p.requires_grad}
    tensors = adapter.lora_tensors(source)
    args = {"lora_alpha": 6, "lora_target_modules": "qvo"}
    adapter.put_lora(model, tensors, args, merge=False)
    after = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert after.keys() == own.keys()
    assert all(after[n] is own[n] for n in own)
    back = adapter.lora_tensors(model)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[n], tensors[n]) for n in tensors)
    weights = (m.transformer.blocks[1].attention.qkv.weight for m in (source, model))
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("args", "rank"),
    [
        ({"lora_alpha": 7, "lora_target_modules": "qv"}, 3),
        ({"lora_alpha": 6, "lora_target_modules": "qk"}, 3),
        ({"lora_alpha": 12, "lora_target_modules": "qv"}, 6),
    ],
)
def test_a_model_that_is_adapted_otherwise_refuses_factors(build, args, rank):
    tensors = adapter.lora_tensors(adapted(build, "qv", rank))
    with pytest.raises(ValueError, match="adapted otherwise"):
        adapter.put_lora(adapted(build, "qv"), tensors, args, merge=False)


def without(tensors):
    del tensors["blocks.1.attn.mat_qkv.lora_B"]


def misshapen(tensors):
    tensors["blocks.0.attn.mat_qkv.lora_A"] = tensors["blocks.0.attn.mat_qkv.lora_A"].T


def of_a_vector(tensors):
    tensors["blocks.0.attn.mat_qkv.lora_B"] = tensors["blocks.0.attn.mat_qkv.lora_B"].flatten()


def infinite(tensors):
    tensors["blocks.1.attn.mat_qkv.lora_A"][0, 0] = float("inf")


def too_deep(tensors):
    tensors["blocks.9.attn.mat_qkv.lora_A"] = tensors["blocks.0.attn.mat_qkv.lora_A"]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (without, "blocks.1.attn.mat_qkv.lora_B is missing"),
        (misshapen, "blocks.0.attn.mat_qkv.lora_A .* does not fit"),
        (of_a_vector, "blocks.0.attn.mat_qkv.lora_A .* does not fit"),
        (infinite, "blocks.1.attn.mat_qkv.* NaN or infinity"),
        (too_deep, "no place for: blocks.9"),
    ],
)
def test_spoilt_factors_are_refused(build, spoil, why):
    args = {"lora_alpha": 6, "lora_target_modules": "qv"}
    tensors = adapter.lora_tensors(adapted(build))
    adapter.put_lora(build(), copy.deepcopy(tensors), args)
    spoil(tensors)
    with pytest.raises(ValueError, match=why):
        adapter.put_lora(build(), tensors, args)


def test_targets_of_another_layout_are_refused(build):
    tensors = adapter.lora_tensors(adapted(build, "qv"))
    with pytest.raises(ValueError, match="does not fit"):
        adapter.put_lora(build(), tensors, {"lora_target_modules": "q"})


@pytest.mark.parametrize(
    ("rank", "targets", "why"),
    [(4, "", "targets=''"), (4, "qx", "must name some of"), (0, "qv", "rank=0")],
)
def test_adapting_refuses_what_makes_no_sense(build, rank, targets, why):
    model = build()
    with pytest.raises(ValueError, match=why):
        add_lora(model, rank, 8, targets)
    assert not adapter.lora_tensors(model)


def test_only_factors_get_gradients(build, images):
    model = adapted(build, "qvo")
    views, inputs = images(1, 2, 3, 32, 32), images(1, 2, model.config.scales.length - 1, 8)
    model(views, inputs).square().mean().backward()
    given = {n for n, p in model.named_parameters() if p.grad is not None}
    assert given == {n for n, p in model.named_parameters() if p.requires_grad}
    assert len(given) == 2 * 2 * 2
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)
