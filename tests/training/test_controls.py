# What a fixer is compared with: a U-Net that learns, and the table that sets them side by side.
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gen_data import dataset_json

ROOT = Path(__file__).parent.parent.parent


def run(*arguments, code=0):
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def warped(triplets, tmp_path_factory):
    """Triplets to learn and to be judged on, the references as if they had been warped."""
    entries = []
    for t in dataset_json.read(triplets, ["train"]):
        guide = replace(t.references[0], warped=t.references[0].path)
        entries.append(replace(t, references=(guide,)))
    path = tmp_path_factory.mktemp("warped") / "data.json"
    dataset_json.write(path, {"train": entries, "val": entries}, "gsvar")
    return path


def test_a_unet_learns_goes_on_and_is_measured(warped, tmp_path):
    own = ("benchmarks.unet", "--json_path", warped, "--out", tmp_path / "unet", "--size", 64, 64)
    own += ("--channels", 8, 16, 16, "--batch_size", 4, "--workers", 0, "--num_samples_eval", 99)
    run(*own, "--steps", 4)
    run(*own, "--steps", 150, "--rate", 3e-3, "--ema", 0.9)
    told = json.loads((tmp_path / "unet" / "metrics.json").read_text())
    assert told["steps"] == 150
    assert told["psnr"] > told["render_psnr"]

    proof = ("benchmarks.proof", warped, "--out", tmp_path / "proof", "--fixers")
    unet = tmp_path / "unet" / "unet.safetensors"
    fixers = (f"unet={unet}", f"noref={unet}:noref", "same=identity", "nlm=nlm")
    done = run(*proof, *fixers)
    results = json.loads((tmp_path / "proof" / "metrics.json").read_text())
    assert set(results) == {"unet", "noref", "same", "nlm"}
    means = {name: next(iter(groups.values())) for name, groups in results.items()}
    assert list(results["unet"]) == ["table/underfitting"]
    assert means["same"]["gain_psnr"] == 0
    assert means["unet"]["gain_psnr"] == pytest.approx(told["psnr"] - told["render_psnr"], abs=0.05)
    assert means["unet"]["psnr"] != means["noref"]["psnr"]
    assert done.stdout.count("\n") == 2 + 4
    assert (tmp_path / "proof" / "unet_random.png").is_file()
    assert run(*proof, *fixers).stdout == done.stdout  # nothing is measured twice

    wrong = run(*proof, "unet=", code=2)
    assert "NAME=WEIGHTS" in wrong.stderr
