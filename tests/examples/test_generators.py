# The trainer with another generator than render-then-fix.
import json

import pytest
import torch
import yaml

from models.efficient_lvsm import EfficientLVSM, tiny
from models.efficient_lvsm.adapter import LAYOUT


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random ones: their views are noise."""
    path = tmp_path_factory.mktemp("weights") / "lvsm.pt"
    torch.manual_seed(0)
    torch.save(LAYOUT.export(EfficientLVSM(tiny())), path)
    return path


def test_views_of_efficient_lvsm_are_gated_like_fixed_renders(capture, tmp_path, trainer, weights):
    out = tmp_path / "out"
    flags = ("--data_dir", capture, "--result_dir", out, "--test_every", 2, "--max_steps", 60)
    flags += ("--fix_steps", 20, 40, "--eval_steps", 60, "--control", "--no-save_video")
    own = ("--generator", "efficient_lvsm", "--generator_checkpoint", weights)
    code, _, err = trainer("default", *flags, *own, "--generator_views", 3)
    assert code == 0, err
    settings = yaml.safe_load((out / "cfg.yml").read_text())
    assert settings["generator"] == "efficient_lvsm" and settings["generator_views"] == 3
    assert settings["generator_checkpoint"] == str(weights) and "fixer" not in settings
    assert (out / "renders/novel/19/Fixed/0000.png").exists()
    fixed, alone = (
        json.loads((folder / "stats/val_step0059.json").read_text())
        for folder in (out, out / "vanilla")
    )
    assert fixed["psnr"] > alone["psnr"] - 0.05  # noise did not reach the splats
    assert "efficient_lvsm" in (out / "report/index.html").read_text()

    # the same run with another generator is another run
    code, _, err = trainer("default", *flags, *own, "--generator_views", 4)
    assert code == 2 and "generator_views" in err


def test_mistakes_are_one_sentence(capture, tmp_path, trainer, weights):
    lvsm = ("--generator", "efficient_lvsm", "--generator_checkpoint", weights)
    base = ("default", "--data_dir", capture, "--result_dir", tmp_path / "out", "--max_steps", 9)
    for flags, message in (
        ((*lvsm, "--fixer", "classical"), "--fixer belongs to fixers"),
        (("--generator_views", 3), "--generator_views belongs to --generator efficient_lvsm"),
        ((*lvsm, "--generator_views", 0), "--generator_views 0 must be at least 1"),
        ((*lvsm[:3], capture / "none.pt"), "none.pt"),
    ):
        code, _, err = trainer(*base, *flags)
        assert code == 2 and message in err, err
    assert not (tmp_path / "out").exists()
