# The sweep over captures and splits: one table, resumable, in shards.
import csv
import json
import subprocess

import pytest

from tests.conftest import GUARD
from tests.examples.conftest import ROOT, environment


def sweep(scenes, out, *flags, **settings):
    variables = {"SCENES": str(scenes), "OUT": str(out), "STEPS": "60", "CAP": "300", "FACTOR": "1"}
    return subprocess.run(
        ["bash", ROOT / "scripts" / "recon_all.sh", "--fixer", "identity", *flags],
        env=environment() | variables | settings,
        capture_output=True,
        text=True,
        timeout=GUARD,
    )


def test_two_shards_make_one_table_and_nothing_is_made_twice(capture, tmp_path):
    out = tmp_path / "sweep"
    flags = ("--rounds", "2", "--gate", "off", "--device", "cpu")
    first = sweep(capture, out, *flags, EVERY="2 3", SHARD="1/2")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count(f"| {capture.parent.name} |") == 1
    second = sweep(capture, out, *flags, EVERY="2 3", SHARD="2/2")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count(f"| {capture.parent.name} |") == 2
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert [r["every"] for r in rows] == ["2", "3"]
    for row in rows:
        folder = out / capture.parent.name / f"every_{row['every']}"
        before, after = (
            json.loads((f / "stats" / "val_step0059.json").read_text())
            for f in (folder / "vanilla", folder)
        )
        assert float(row["vanilla_psnr"]) == pytest.approx(before["psnr"], abs=1e-4)
        assert float(row["gain_psnr"]) == pytest.approx(after["psnr"] - before["psnr"], abs=2e-4)
        assert row["rounds"] == "2"
        assert (folder / "report" / "index.html").is_file()
    assert (out / "table.png").is_file()
    assert second.stdout == (out / "table.md").read_text()

    times = {p: p.stat().st_mtime_ns for p in out.rglob("ckpt_*.pt")}
    again = sweep(capture, out, *flags, EVERY="2 3")
    assert again.stdout == second.stdout
    assert times == {p: p.stat().st_mtime_ns for p in out.rglob("ckpt_*.pt")}


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"SCENES": ""}, "name the captures: SCENES="),
        ({"SCENES": "nowhere"}, "nowhere is not a folder"),
        ({"SCENES": "", "PROCEDURAL": "0"}, "name folders of captures, or make some with"),
        ({"EVERY": "2 2"}, "several captures would go to"),
        ({"SHARD": "4/3"}, "--shard 4/3 must be i/n"),
        ({"STEPS": "0"}, "--steps"),
    ],
)
def test_settings_that_make_no_sweep_are_refused(settings, why, capture, tmp_path):
    done = sweep(settings.pop("SCENES", capture), tmp_path / "out", **settings)
    assert done.returncode == 2
    assert why in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["demo", "recon_all", "recon_gsvar", "recon_difix", "recon_vanilla"]
)
def test_scripts_describe_themselves(name):
    command = ["bash", ROOT / "scripts" / f"{name}.sh", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("# ") and "Settings" in done.stdout
