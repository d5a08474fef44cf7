# What a run writes down: lines that survive kills and go on, the table, the curves, the pictures.
import csv
import io
import json
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.journal import WANDB_SECONDS, Journal, _average, _thin, draw


def journal(folder, **options):
    return Journal(folder, name="test", settings={"depth": 2, "path": Path("a")}, **options)


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def size(png):
    return Image.open(io.BytesIO(png)).size


@pytest.fixture
def no_wandb(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)


# lines ---------------------------------------------------------------------------------------


def test_a_line_is_on_the_disk_when_it_is_written(tmp_path):
    book = journal(tmp_path / "new" / "run")
    book.train(10, {"loss": torch.tensor(2.5), "count": 3, "lr": np.float32(0.5)})
    expected = '{"step": 10, "kind": "train", "loss": 2.5, "count": 3, "lr": 0.5}\n'
    assert (tmp_path / "new" / "run" / "metrics.jsonl").read_text() == expected


def test_numbers_that_are_not_finite_are_null(tmp_path):
    book = journal(tmp_path)
    book.train(1, {"loss": float("nan"), "norm": torch.tensor(float("inf")), "lr": 1e-5})
    book.validate(1, {"psnr": 20.0, "lpips": None}, {})
    first, second = rows(tmp_path)
    assert first == {"step": 1, "kind": "train", "loss": None, "norm": None, "lr": 1e-5}
    assert second == {"step": 1, "kind": "val", "psnr": 20.0, "lpips": None}
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_run_that_goes_on_drops_what_it_will_write_again(tmp_path):
    book = journal(tmp_path)
    for step in (10, 20, 30, 40):
        book.train(step, {"loss": 1.0})
    book = journal(tmp_path, start_step=20)
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]
    book.train(30, {"loss": 2.0})
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(10, 1), (20, 1), (30, 2)]


@pytest.mark.parametrize("torn", [b'{"step": 20, "ki', b'{"step": 20, "kind": "\xc3', b"\0\0\0"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    journal(tmp_path).train(10, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn)
    journal(tmp_path, start_step=20).train(30, {"loss": 2.0})
    assert [row["step"] for row in rows(tmp_path)] == [10, 30]


def test_a_last_line_without_its_end_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "kind": "train", "loss": 1.0}')
    journal(tmp_path, start_step=10).train(20, {"loss": 2.0})
    assert [row["step"] for row in rows(tmp_path)] == [10, 20]


def test_a_new_run_starts_with_an_empty_file(tmp_path):
    journal(tmp_path).validate(0, {"psnr": 20.0}, {})
    journal(tmp_path)
    assert rows(tmp_path) == []


# files ---------------------------------------------------------------------------------------


def test_pictures_are_saved_as_they_are(tmp_path):
    picture = torch.rand(6, 8, 3, generator=torch.Generator().manual_seed(0))
    pixels = (picture.numpy() * 255).round().astype(np.uint8)
    shown = {"scene/0001": picture, "bytes": pixels, "half": picture.bfloat16()}
    journal(tmp_path).validate(1200, {"psnr": 20.0}, shown)
    folder = tmp_path / "val" / "0001200"
    assert sorted(file.name for file in folder.iterdir()) == [
        "bytes.png",
        "half.png",
        "scene_0001.png",
    ]
    assert (np.asarray(Image.open(folder / "scene_0001.png")) == pixels).all()
    assert (np.asarray(Image.open(folder / "bytes.png")) == pixels).all()


def test_the_table_has_all_lines_and_all_columns(tmp_path):
    book = journal(tmp_path)
    book.train(1, {"loss": 2.0})
    book.train(2, {"loss": float("nan"), "gram": 0.5})
    book.validate(2, {"psnr": 20.0}, {})
    book.flush()
    with (tmp_path / "metrics.csv").open() as file:
        assert list(csv.reader(file)) == [
            ["step", "kind", "loss", "gram", "psnr"],
            ["1", "train", "2.0", "", ""],
            ["2", "train", "", "0.5", ""],
            ["2", "val", "", "", "20.0"],
        ]
    assert size((tmp_path / "training.png").read_bytes())[0] > 1000
    assert not list(tmp_path.glob(".*"))  # no temporary files


def test_close_flushes_what_was_not(tmp_path):
    book = journal(tmp_path)
    book.train(1, {"loss": 1.0})
    book.flush()
    book.train(2, {"loss": 1.0})
    book.close()
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3
    (tmp_path / "metrics.csv").unlink()
    book.close()
    assert not (tmp_path / "metrics.csv").exists()


def test_flush_before_the_first_line_writes_nothing(tmp_path):
    book = journal(tmp_path)
    book.flush()
    book.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told(tmp_path):
    book = journal(tmp_path)
    book.train(1, {"loss": 1.0})
    book.lines.unlink()
    book.lines.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        book.train(2, {"loss": 1.0})


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    book = journal(tmp_path)
    (tmp_path / "val").write_text("in the way")
    with pytest.raises(OSError, match="val"):
        book.validate(1, {"psnr": 20.0}, {"a": np.zeros((4, 4, 3))})
    assert book._wandb is None
    with pytest.raises(OSError, match="val"):
        journal(tmp_path / "val")


# curves --------------------------------------------------------------------------------------


def train_row(step, **values):
    return {"step": step, "kind": "train", "loss": 1 / step, "lr": 1e-5, "wd": 0.05, **values}


def panels(monkeypatch, rows):
    """The axes of the picture of `rows`, by their titles."""
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda f, *a, **k: (drawn.append(f), save(f, *a, **k)))
    draw(rows, "a $ title")
    return {axis.get_title("left"): axis for axis in drawn[0].axes if axis.axison}


def test_panels_are_of_the_terms_the_rate_and_the_metrics(monkeypatch):
    lines = [train_row(step, ce=3.0, gram=None if step < 5 else 1.0) for step in range(1, 9)]
    lines += [
        {"step": 4 * i, "kind": "val", "psnr": 20.0 + i, "render_psnr": 19.0, "lpips": None}
        for i in (1, 2)
    ]
    axes = panels(monkeypatch, lines)
    assert list(axes) == ["loss", "ce", "gram (4 not finite)", "lr", "validation psnr"]
    fixed, render = axes["validation psnr"].get_lines()
    assert (fixed.get_linestyle(), render.get_linestyle()) == ("-", "--")
    assert list(render.get_ydata()) == [19.0, 19.0]
    assert list(fixed.get_ydata()) == [21.0, 22.0]


def test_scale_is_logarithmic_over_more_than_two_decades(monkeypatch):
    lines = [
        train_row(step, steep=10.0**-step, shallow=1.0 + step, signed=10.0**step - 100)
        for step in range(1, 6)
    ]
    axes = panels(monkeypatch, lines)
    scales = {name: axis.get_yscale() for name, axis in axes.items()}
    assert scales["steep"] == "log"
    assert scales["shallow"] == scales["signed"] == scales["loss"] == "linear"


@pytest.mark.parametrize(
    "values",
    [
        [1.0],
        [0.0],
        [None],
        [None, 2.0],
        [0.0, 0.0, 1e-9, 1e9],
        [-1.0] * 300,
        [1e300, 1e-300],
        [1e300] * 3,
    ],
)
def test_any_values_make_a_picture(values):
    lines = [train_row(i + 1, odd=value) for i, value in enumerate(values)]
    assert min(size(draw(lines, "run"))) > 100
    lines = [{"step": 0, "kind": "val", "psnr": value, "render_psnr": 1.0} for value in values]
    assert min(size(draw(lines, "run"))) > 100


def test_many_lines_are_thinned_and_spikes_kept():
    steps = np.arange(100_003.0)
    values = np.sin(steps)
    values[50_000], values[70_000] = 99.0, np.nan
    thin_steps, thin_values = _thin(steps, values)
    assert len(thin_steps) < 3000
    assert np.nanmax(thin_values) == 99
    assert thin_steps[-1] == steps[-1]
    assert (np.diff(thin_steps) > 0).all()


def test_smoothing_is_a_mean_of_neighbours_that_are_numbers():
    values = np.array([1.0, 1, 1, np.nan, 1, 1, 5, 1, 1])
    smooth = _average(values, 3)
    assert smooth[:5] == pytest.approx([1] * 5)
    assert smooth[6] == pytest.approx((0.5 * 1 + 5 + 0.5 * 1) / 2)
    assert np.isnan(_average(np.full(5, np.nan), 3)).all()
    line = np.arange(50.0)
    assert _average(line, 5)[5:-5] == pytest.approx(line[5:-5])  # it does not lag
    assert _average(line, 6)[5:-5] == pytest.approx(line[5:-5], abs=0.51)


# Weights & Biases ----------------------------------------------------------------------------


def test_without_wandb_there_are_files_and_one_warning(tmp_path, no_wandb, caplog):
    book = journal(tmp_path, wandb=True)
    book.train(1, {"loss": 1.0})
    book.close()
    assert len(rows(tmp_path)) == 1
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == [
        "Weights & Biases is not installed (pip install wandb); logging to files only."
    ]


def test_wandb_is_left_alone_unless_wanted(tmp_path, no_wandb, caplog):
    book = journal(tmp_path)
    book.train(1, {"loss": 1.0})
    book.close()
    assert not caplog.records
    assert not (tmp_path / "wandb_id.txt").exists()


@pytest.fixture
def real_wandb(tmp_path, monkeypatch):
    """The real package, with nobody logged in."""
    wandb = pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    return wandb


def test_wandb_offline_keeps_its_run(tmp_path, real_wandb, caplog):
    book = journal(tmp_path, wandb=True, wandb_mode="offline")
    book.train(1, {"loss": 1.0, "gram": float("nan")})
    book.validate(1, {"psnr": 20.0}, {"a": np.zeros((16, 16, 3))})
    book.close()
    book.close()
    first = (tmp_path / "wandb_id.txt").read_text().strip()
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{first}/run-{first}.wandb"))
    assert list((tmp_path / "wandb").glob("offline-run-*/files/media/images/**/*.png"))

    journal(tmp_path, start_step=1, wandb=True, wandb_mode="offline").close()
    assert (tmp_path / "wandb_id.txt").read_text().strip() == first
    journal(tmp_path, start_step=1, wandb=True, wandb_mode="offline", wandb_id="given123").close()
    assert (tmp_path / "wandb_id.txt").read_text().strip() == "given123"
    journal(tmp_path, wandb=True, wandb_mode="offline").close()
    assert (tmp_path / "wandb_id.txt").read_text().strip() not in (first, "given123")
    assert not [r for r in caplog.records if r.name == "training.journal"]


@pytest.mark.parametrize("login", [False, True])
def test_wandb_falls_back_to_offline(tmp_path, real_wandb, monkeypatch, caplog, login):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody answers there
    if login:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    book = journal(tmp_path, wandb=True)
    book.train(1, {"loss": 1.0})
    book.close()
    assert WANDB_SECONDS < 25  # of waiting for an answer
    messages = [r.getMessage() for r in caplog.records if r.name == "training.journal"]
    assert len(messages) == 1
    assert "logging offline, to" in messages[0]
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_an_error_of_wandb_does_not_end_the_training(tmp_path, real_wandb, monkeypatch, caplog):
    book = journal(tmp_path, wandb=True, wandb_mode="offline")
    book._wandb.finish()  # a finished run refuses to log
    book.train(1, {"loss": 1.0})
    book.train(2, {"loss": 1.0})
    book.close()
    assert len(rows(tmp_path)) == 2
    messages = [r.getMessage() for r in caplog.records if r.name == "training.journal"]
    assert len(messages) == 1
    assert messages[0].endswith("logging to files only.")


def test_wandb_that_cannot_start_leaves_the_files(tmp_path, real_wandb, monkeypatch, caplog):
    def fails(**options):
        raise RuntimeError("no\nroom")

    monkeypatch.setattr(real_wandb, "init", fails)
    book = journal(tmp_path, wandb=True, wandb_mode="offline")
    book.train(1, {"loss": 1.0})
    book.close()
    messages = [r.getMessage() for r in caplog.records if r.name == "training.journal"]
    assert messages == ["Weights & Biases does not start (no); logging to files only."]
