# python -m scenes, as people run it.
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

from runtime.command import run_command
from scenes.__main__ import Options, main
from tests.conftest import GUARD

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "scenes", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=GUARD,
    )


def test_json_is_all_of_stdout_and_the_contact_sheet_is_a_picture(capture, tmp_path):
    (capture / "images/003.png").write_bytes(b"")
    sheet = tmp_path / "sheet.png"
    done = run(capture, "--json", "--data_factor", 2, "--test_every", 4, "--contact_sheet", sheet)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["kind"] == "COLMAP" and summary["views"] == 7 and summary["points"] == 20
    assert summary["image_sizes"] == [{"width": 32, "height": 24, "views": 7}]
    assert summary["split"]["train"] == ["000.png", "005.png"]  # as Difix3D's
    assert "003.png is empty" in summary["notes"][0]
    pixels = np.array(Image.open(sheet)).reshape(-1, 3)
    for color in ((42, 110, 187), (217, 95, 14)):  # train and test are marked
        assert (pixels == color).all(1).sum() > 100


def test_readable_summary_says_where_the_contact_sheet_is(capture, tmp_path):
    before = sorted(capture.rglob("*"))
    done = run(capture, "--split", "all", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 by 1 camera" in done.stdout and "all 8 views train" in done.stdout
    assert "results/capture/contact_sheet.png" in done.stdout
    assert (tmp_path / "results/capture/contact_sheet.png").is_file()
    assert sorted(capture.rglob("*")) == before  # nothing is left in a user's capture


def test_where_nothing_can_be_written_the_contact_sheet_is_in_the_temporary_folder(
    capture, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "here").mkdir(mode=0o555)
    monkeypatch.chdir(tmp_path / "here")
    main(tyro.cli(Options, args=[str(capture)]))
    sheet = tmp_path / "capture_contact_sheet.png"
    assert sheet.is_file() and str(sheet) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no/such/folder"], "no/such/folder does not exist"),
        (["EMPTY"], "is not a capture"),
        (["CAPTURE", "--split", "gsplat", "--test_every", "1"], "--test_every 1"),
        (["CAPTURE", "--data_factor", "-1"], "--data_factor -1"),
        (["CAPTURE", "--split", "json"], "--split_file"),
        (["CAPTURE", "--split_file", "none.json", "--data_factor", "2"], "none.json"),
        (["CAPTURE", "--contact_sheet", "sheet.xyz"], "sheet.xyz"),
        (["CAPTURE", "--contact_sheet", "empty", "--data_factor", "2"], "empty is a folder"),
        (["CAPTURE", "--image_folder", "sparse/0/cameras.bin"], "is not a folder"),
        (["CAPTURE", "--data_factor", "1000"], "--data_factor 1000 makes the photos 1x1"),
        (
            ["CAPTURE", "--data_factor", "2", "--split", "all", "--split_file", "x.json"],
            "--split all does not use",
        ),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_2(
    capture, tmp_path, monkeypatch, capsys, arguments, sentence
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"CAPTURE": str(capture), "EMPTY": str(tmp_path / "empty")}
    before = sorted(tmp_path.rglob("*"))
    options = tyro.cli(Options, args=[places.get(argument, argument) for argument in arguments])
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: main(options))
    assert stop.value.code == 2
    out, error = capsys.readouterr()
    errors = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and sentence in errors[0] and out == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_the_exit_code_of_the_process_is_2(tmp_path):
    done = run(tmp_path / "nowhere")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "nowhere does not exist" in done.stderr
