# ArchonView's network: sizes and names, files, decoding against all scales at once, the original's
# vectors.
import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.parity import archonview as parity
from models.archonview import PRESETS, ArchonView
from models.archonview.adapter import LAYOUT, SYSTEM, build, foreign_name
from models.archonview.pose import relative_pose
from models.checkpoints import registry
from models.checkpoints.system import save
from models.var.sampler import Sampling

SHARED = Path(__file__).parents[3].parent / "shared"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = ArchonView(PRESETS["tiny"]()).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn_like(parameter) / max(1, parameter[0].numel()) ** 0.5)
    model.null_embedding.normal_()
    return model


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_the_network_is_the_original_s():
    rows = parity.compare(SHARED / "parity" / "archonview")
    assert len(rows) >= 31
    assert [f"{row.name}: {row.error:.1e}" for row in rows if not row.passes] == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
@pytest.mark.parametrize("name", ["d12", "d16", "d20", "d24", "d30"])
def test_names_and_shapes_are_the_original_s(name):
    keys = json.loads((SHARED / "keys/keys_archonview.json").read_text())[f"archonview_{name}"]
    model = build(PRESETS[name]())
    own = dict(model.named_parameters())
    count = sum(p.numel() for n, p in own.items() if not n.startswith("vqvae."))
    assert count == keys["n_params"]
    expected = {
        pattern.replace("{i}", str(i)): math.prod(value["shape"])
        for pattern, value in keys["patterns"].items()
        for i in range(value["count"])
    }
    names = {foreign_name(n): p.numel() for n, p in own.items() if not n.startswith("vqvae.")}
    assert all(expected[n] == numel for n, numel in names.items())
    left = expected.keys() - names.keys()
    assert all(n in ("lvl_1L", "attn_bias_for_masking") or "zero_k_bias" in n for n in left)


def test_files_are_read_and_written(model, tmp_path):
    torch.save(LAYOUT.export(model), tmp_path / "ar-ckpt-best.pth")
    save(SYSTEM, model, tmp_path / "own.safetensors")
    for name in ("ar-ckpt-best.pth", "own.safetensors"):
        config, other = registry.load(tmp_path / name)
        assert config.scales == model.config.scales and config.width == 64
        for key, tensor in model.state_dict().items():
            if key != "null_embedding" or name.startswith("own"):  # not in the original's files
                assert torch.equal(other.state_dict()[key], tensor), key
    content = LAYOUT.export(model)
    del content["trainer"]["var_wo_ddp"]["head.bias"]
    torch.save(content, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part\.pth does not fit: head.bias is missing"):
        registry.load(tmp_path / "part.pth")
    del content["trainer"]["vae_local"]
    torch.save(content, tmp_path / "half.pth")
    with pytest.raises(ValueError, match=r"half\.pth holds no tokenizer"):
        registry.load(tmp_path / "half.pth")


def test_scale_by_scale_is_all_at_once(model):
    """Float64: what decoding chose is what all scales at once find likeliest."""
    exact = ArchonView(model.config).double().eval().requires_grad_(False)
    exact.load_state_dict(model.state_dict())
    codes = [torch.randint(0, 64, (2, n)) for n in model.config.scales.lengths]
    embeddings = torch.randn(2, 768, dtype=torch.float64)
    poses = torch.randn(2, 4, dtype=torch.float64)
    _, tokens = exact.generate(codes, embeddings, poses)
    maps = exact.vqvae.quantizer.inputs(tokens, model.config.scales.grids)
    logits = exact(exact.source_tokens(codes), exact.conditions(embeddings, poses), maps)
    assert torch.equal(logits.argmax(-1), torch.cat(tokens, 1))
    # the source matters, and without guidance nothing else is asked
    other = [code.flip(0) for code in codes]
    _, changed = exact.generate(other, embeddings, poses)
    assert not torch.equal(torch.cat(changed, 1), torch.cat(tokens, 1))


def test_draws_follow_their_generator(model):
    codes = [torch.zeros(1, n, dtype=torch.long) for n in model.config.scales.lengths]
    given = codes, torch.ones(1, 768), torch.zeros(1, 4)
    results = [
        torch.cat(
            model.generate(
                *given,
                sampling=Sampling(0, 0.0, 2.0),
                generator=torch.Generator().manual_seed(seed),
            )[1],
            1,
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_poses():
    eye = torch.eye(4, dtype=torch.float64)[:3].clone()
    eye[:, 3] = torch.tensor([0.0, -1.0, -1.0])  # centre (0, 1, 1)
    assert torch.allclose(relative_pose(eye, eye), torch.tensor([0.0, 0.0, 1.0, 0.0]))
    other = eye.clone()
    other[:, 3] = torch.tensor([1.0, 0.0, -1.0])  # centre (-1, 0, 1): a quarter turn further
    assert torch.allclose(relative_pose(eye, other), torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-6)
    top = eye.clone()
    top[:, 3] = torch.tensor([0.0, 0.0, -2.0])  # on the axis
    expected = torch.tensor([-math.pi / 4, -1.0, 0.0, 2 - 2**0.5])
    assert torch.allclose(relative_pose(eye, top), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"a pose is \[3,4\], world to camera, not \[4, 4\]"):
        relative_pose(torch.eye(4), torch.eye(4))
