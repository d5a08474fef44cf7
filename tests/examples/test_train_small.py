# The whole recipe of the shipped weights, on scenes and sizes for a test.
import json
import subprocess

import pytest

import fixers
from tests.conftest import GUARD
from tests.examples.conftest import ROOT, environment

SIZES = {
    "depth": 2, "width": 32, "heads": 2, "patch_nums": "1_2x3_3x4", "sampler": "none",
    "prefix_channels": [8, 16, 32, 32], "refiner_width": 32, "refiner_blocks": 1,
    "render_prior": True, "warped_references": True, "render_alpha": True, "fine_width": 8,
    "vqvae_width": 8, "vqvae_multipliers": [1, 2, 4, 4], "vqvae_blocks": 1, "vqvae_groups": 4,
    "vqvae_patch": 2, "vqvae_shortcut": True, "latent_channels": 16, "vocabulary": 64,
}  # fmt: skip


def recipe(capture, **settings):
    paths = {
        "SCENES": "2", "HELD": "1", "VIEWS": "6", "WIDTH": "64", "HEIGHT": "48", "RECON": "24",
        "CAPTURES": str(capture), "EVERY": "2 3", "IMAGES": "images", "STEPS": "2 2 2",
        "BATCH": "2", "PRECISION": "0", "CONTROLS": "0.01",
        "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1",
    }  # fmt: skip
    return subprocess.run(
        ["bash", ROOT / "scripts" / "train_small.sh"],
        env=environment() | paths | settings,
        capture_output=True,
        text=True,
        timeout=GUARD,
    )


def test_one_command_makes_scenes_weights_controls_and_their_proof(capture, tmp_path):
    out, sizes = tmp_path / "out", tmp_path / "sizes.json"
    sizes.write_text(json.dumps(SIZES))
    done = recipe(capture, OUT=str(out), PRESET=str(sizes))
    assert done.returncode == 0, done.stderr[-2000:]
    learnt = json.loads((out / "captures" / "data.json").read_text())
    strategies = {name.split("_sparse_")[1][0] for name in learnt["train"] if "_sparse_" in name}
    assert strategies == {"2", "3"}
    assert "val" not in learnt
    assert fixers.load("gsvar", checkpoint=out / "gsvar.safetensors").model.config.depth == 2
    assert json.loads((out / "proof" / "metrics.json").read_text()).keys() == {
        "gsvar", "gsvar_noref", "gsvar_photo", "gsvar_noalpha", "bridge_only", "truth_tokens",
        "nlm", "oracle",
        "unet_use_ref", "unet_no_use_ref",
    }  # fmt: skip
    assert (out / "proof" / "gsvar_random.png").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"CAPTURES": "nowhere"}, "nowhere is not a folder (CAPTURES, TESTS)"),
        ({"TESTS": "CAPTURE"}, "two captures are called"),  # learnt from and judged on
        ({"PRESET": "large"}, "PRESET=large: mini, small"),
        ({"STEPS": "2 2"}, "STEPS=2 2: three numbers"),
        ({"BATCH": "0"}, "BATCH=0: whole numbers from 1 on"),
        ({"EVERY": "2 x"}, "EVERY=2 x: whole numbers from 2 on"),
        ({"MODEL": "README.md"}, "README.md is truncated or not a checkpoint"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(capture, tmp_path, settings, message):
    settings = {name: value.replace("CAPTURE", str(capture)) for name, value in settings.items()}
    failed = recipe(capture, OUT=str(tmp_path / "out"), **settings)
    assert failed.returncode == 2
    assert message in failed.stderr
    assert not (tmp_path / "out").exists()
