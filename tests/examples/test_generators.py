# The trainer with another generator than render-then-fix.
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from examples.gsplat.flags import FixerFlags, Flags
from examples.gsplat.inputs import load_generator
from models.efficient_lvsm import EfficientLVSM, tiny
from models.efficient_lvsm.adapter import LAYOUT
from models.lvsm import LVSM
from models.lvsm import adapter as lvsm_adapter
from models.lvsm.config import tiny as tiny_lvsm
from reconstruction import FixConfig

GSVAR = Path(__file__).parents[2] / "checkpoints" / "gsvar-mini.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random ones: their views are noise."""
    path = tmp_path_factory.mktemp("weights") / "lvsm.pt"
    torch.manual_seed(0)
    torch.save(LAYOUT.export(EfficientLVSM(tiny())), path)
    return path


def test_views_of_efficient_lvsm_are_gated_like_fixed_renders(capture, tmp_path, trainer, weights):
    out = tmp_path / "out"
    flags = ("--data_dir", capture, "--result_dir", out, "--test_every", 2, "--max_steps", 40)
    flags += ("--fix_steps", 20, 30, "--eval_steps", 40, "--no-save_video")
    own = ("--generator", "efficient_lvsm", "--generator_checkpoint", weights)
    code, _, err = trainer("default", *flags, *own, "--generator_views", 3, "--control")
    assert code == 0, err
    settings = yaml.safe_load((out / "cfg.yml").read_text())
    assert settings["generator"] == "efficient_lvsm" and settings["generator_views"] == 3
    assert settings["generator_checkpoint"] == str(weights) and "fixer" not in settings
    (record,) = json.loads((out / "stats/rounds_step0039.json").read_text())
    assert record["verdict"] == "refused" and "--no-use_ref" not in record["why"]
    assert (out / "renders/novel/19/Fixed/0000.png").exists()
    fixed, alone = (
        json.loads((folder / "stats/val_step0039.json").read_text())
        for folder in (out, out / "vanilla")
    )
    assert fixed["psnr"] == alone["psnr"]
    ours, theirs = (
        torch.load(folder / "ckpts/ckpt_39_rank0.pt", weights_only=True)["splats"]
        for folder in (out, out / "vanilla")
    )
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert fixed["post_psnr"] < fixed["psnr"]  # its views of the held-out cameras are noise, shown
    page = (out / "report/index.html").read_text()
    assert "<dt>novel views</dt> <dd>Efficient-LVSM</dd>" in page and "Efficient-LVSM PSNR" in page
    assert "renders fixed" not in page and "fixed render" not in page

    # the same run with another generator is another run
    code, _, err = trainer("default", *flags, *own, "--generator_views", 4)
    assert code == 2 and "--generator_views was 3, now 4" in err
    code, _, err = trainer("default", *flags, "--fixer", "classical")
    assert code == 2 and "--generator was efficient_lvsm, now render_then_fix" in err


def test_a_missing_checkpoint_is_one_sentence(capture, tmp_path, trainer):
    flags = ("--generator", "efficient_lvsm", "--generator_checkpoint", tmp_path / "none.pt")
    code, _, err = trainer("default", "--data_dir", capture, "--result_dir", tmp_path / "o", *flags)
    assert code == 2 and "none.pt: no such checkpoint file" in err and "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_flags_of_fixers_and_other_systems_are_refused(tmp_path, weights):
    lvsm = tmp_path / "decoder_only.pt"
    torch.save(lvsm_adapter.LAYOUT.export(LVSM(tiny_lvsm())), lvsm)
    own = FixerFlags(generator="efficient_lvsm", generator_checkpoint=weights)
    seed = replace(own.options, fixer_seed=0)
    for fixing, message in (
        (replace(own, fixer="classical"), "--fixer belongs to fixers: leave it out with --gen"),
        (replace(own, tiling=True), "--tiling belongs to fixers"),
        (replace(own, use_ref=False), "--use_ref belongs to fixers"),
        (replace(own, options=seed), "--fixer_seed belongs to fixers"),
        (replace(own, generator_views=0), "--generator_views 0 must be at least 1"),
        (FixerFlags(generator_views=3), "--generator_views belongs to --generator efficient_lvsm"),
        (replace(own, generator_checkpoint=lvsm), "only.pt is a checkpoint of LVSM .*not of Effic"),
        (replace(own, generator_checkpoint=GSVAR), "is a checkpoint of GS-VAR.*not of Efficient"),
    ):
        with pytest.raises(ValueError, match=message):
            load_generator(Flags(data_dir=tmp_path, fixing=fixing), FixConfig(), "cpu")
