# What a fixer is compared with: a U-Net that learns, and the table that sets them side by side.
import json
import sys
from dataclasses import replace

import pytest

from benchmarks.quality import proof, unet
from triplets import manifest


@pytest.fixture(scope="module")
def warped(triplets, tmp_path_factory):
    """Triplets to learn and to be judged on, the references as if they had been warped."""
    entries = []
    for t in manifest.read(triplets, ["train"]):
        guide = replace(t.references[0], warped=t.references[0].path)
        entries.append(replace(t, references=(guide,)))
    path = tmp_path_factory.mktemp("warped") / "data.json"
    manifest.write(path, {"train": entries, "val": entries}, "gsvar")
    return path


def test_a_unet_learns_goes_on_and_is_measured(warped, tmp_path, monkeypatch, capsys):
    def run(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        command.main()
        return capsys.readouterr().out

    own = ("--json_path", warped, "--out", tmp_path / "unet", "--size", 64, 64)
    own += ("--channels", 8, 16, 16, "--batch_size", 4, "--workers", 0, "--num_samples_eval", 99)
    own += ("--rate", 3e-3, "--ema", 0.9)
    run(unet, *own, "--steps", 4)
    run(unet, *own, "--steps", 60)
    run(unet, *own, "--steps", 60)  # nothing is left to do
    with pytest.raises(ValueError, match="is of a run with other settings"):
        run(unet, *own, "--steps", 60, "--seed", 1)
    with pytest.raises(ValueError, match="must be positive"):
        run(unet, *own, "--steps", 0)
    metrics = json.loads((tmp_path / "unet" / "metrics.json").read_text())
    assert metrics["steps"] == 60
    assert metrics["psnr"] > metrics["render_psnr"]

    weights = tmp_path / "unet" / "unet.safetensors"
    fixers = (
        f"unet={weights}",
        f"noref={weights}:noref",
        "same=identity",
        "nlm=nlm",
        "best=oracle",
    )
    asked = (warped, "--out", tmp_path / "proof", "--fixers", *fixers)
    table = run(proof, *asked)
    results = json.loads((tmp_path / "proof" / "metrics.json").read_text())
    assert set(results) == {"unet", "noref", "same", "nlm", "best"}
    means = {name: next(iter(groups.values())) for name, groups in results.items()}
    assert list(results["unet"]) == ["table/underfitting"]
    assert means["same"]["gain_psnr"] == 0
    assert means["best"]["gain_psnr"] > 0 and means["best"]["worse"] == 0
    assert means["unet"]["gain_psnr"] == pytest.approx(
        metrics["psnr"] - metrics["render_psnr"], abs=0.05
    )
    assert means["unet"]["psnr"] != means["noref"]["psnr"]
    assert table.count("\n") == 2 + 5
    assert (tmp_path / "proof" / "unet_random.png").is_file()
    monkeypatch.setattr(proof, "FixingMetrics", None)  # nothing is measured twice
    assert run(proof, *asked) == table
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[]")
    with pytest.raises(ValueError, match="is no list of triplets"):
        run(proof, wrong, "--fixers", "same=identity")
    with pytest.raises(ValueError, match="has no entries in test"):
        run(proof, warped, "--splits", "test", "--fixers", "same=identity")
    with pytest.raises(ValueError, match="the oracle chooses from a reference"):
        run(proof, warped, "--fixers", "best=oracle:noref")
    with pytest.raises(ValueError, match="a NAME of its own"):
        run(proof, warped, "--fixers", "same=identity", "same=nlm")
    with pytest.raises(ValueError, match="NAME=WEIGHTS"):
        run(proof, warped, "--fixers", "unet=")
