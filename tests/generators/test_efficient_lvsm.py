# Efficient-LVSM as a generator and as a command, with random weights.
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from generators import References
from generators.efficient_lvsm import EfficientLVSMViews, load, load_model
from models.checkpoints import system
from models.efficient_lvsm import EfficientLVSM, tiny
from models.efficient_lvsm.adapter import LAYOUT, SYSTEM
from models.lvsm import LVSM
from models.lvsm import adapter as lvsm
from models.lvsm.config import tiny as tiny_lvsm
from splats.gaussians import from_points
from splats.rasterize import rasterize
from tests.scenes.captures import write_capture


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EfficientLVSM(tiny()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    system.export(SYSTEM, model, path)
    return path


def test_views_without_and_beside_splats(scene, model, monkeypatch):
    references, cameras = References.from_scene(scene, (0, 1, 3, 7)), scene.cameras[[2, 4]]
    generator = EfficientLVSMViews(model, views=3)
    alone = generator.generate(references, cameras)
    assert alone[0].references == tuple(scene.names[i] for i in (0, 3, 7))  # evenly chosen
    assert all((view.confidence == 1).all() and view.agreement is None for view in alone)
    render = partial(rasterize, from_points(scene.points, scene.point_colors, opacity=0.9))
    beside = generator.generate(references, cameras, render=render)
    for a, b in zip(alone, beside, strict=True):
        assert torch.allclose(a.image, b.image, atol=1e-5)
        assert b.pictures["render"].shape == b.image.shape
        assert (b.confidence <= 1).all() and (b.confidence < 1).any()
    encoded = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda *inputs: encoded.append(1) or encode(*inputs))
    generator.generate(references, scene.cameras[[2, 4] * 5], render=render)  # two batches
    assert len(encoded) == 3  # each photo once
    with pytest.raises(ValueError, match="at least one photo"):
        generator.generate(References.from_scene(scene, ()), cameras)


def test_files_are_told_apart(model, weights, tmp_path):
    assert load(weights, capacity=3).capacity == 3
    for name, size in (("efficient_lvsm_res512.pt", 512), ("ckpt.pt", 32)):
        torch.save(LAYOUT.export(model), tmp_path / name)
        assert load_model(tmp_path / name).config == replace(model.config, image_size=size)
    torch.save(lvsm.LAYOUT.export(LVSM(tiny_lvsm())), tmp_path / "scene_decoder_only_256.pt")
    with pytest.raises(ValueError, match=r"256.pt is a checkpoint of LVSM .*not of Efficient-LVSM"):
        load(tmp_path / "scene_decoder_only_256.pt")


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("capture") / "room"
    write_capture(folder)
    return folder


def test_the_command(capture, weights, run_script, tmp_path):
    common = ("efficient_lvsm", capture, "--checkpoint", weights, "--output_dir", tmp_path / "out")
    code, text = run_script(tmp_path, "generators/__main__.py", *common, "--frames", 3)
    assert code == 0, text
    assert len(list((tmp_path / "out" / "views").iterdir())) == 3
    assert (tmp_path / "out" / "views.mp4").stat().st_size > 0
    code, text = run_script(tmp_path, "generators/__main__.py", *common, "--targets", "test")
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert code == 0 and measured["mean"]["psnr"] > 0 and len(measured["views"]) == 1
    for wrong, message in (
        (("--targets", "nope.json"), "nope.json: no such file (--targets)"),
        (("--views", 0), "--views 0 must be at least 1"),
        (("--checkpoint", tmp_path / "no.pt"), "no.pt: no such checkpoint file"),
    ):
        code, text = run_script(tmp_path, "generators/__main__.py", *common, *wrong)
        assert code == 2 and message in text
