# What benchmarks.run says of a stored table and of what moved.
import json

import pytest
import torch

from benchmarks import run, timing
from benchmarks.speed import quick
from benchmarks.timing import measurable, product, seconds


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(timing, "free_share", lambda threads: 1.0)


def rows(**units):
    return {name: {"ms": 100 * value, "units": value} for name, value in units.items()}


def test_what_moved_by_more_than_15_percent_is_told_in_both_directions():
    now = rows(decode=1.2, encode=0.8, restore=1.1, fresh=3.0)
    text = run.format_table(now, {"decode": 1.0, "encode": 1.0, "restore": 1.0, "lost": 2.0})
    assert text.splitlines()[-2:] == ["decode: 20% slower", "encode: 20% faster"]
    assert "| restore | 110.0 | 1.100 | 1.000 | +10% |" in text
    assert "| fresh | 300.0 | 3.000 | new | |" in text
    assert "| lost | | | 2.000 | gone |" in text


def test_nothing_moved():
    assert "nothing moved by more than 15%" in run.format_table(rows(decode=1.14), {"decode": 1.0})
    assert "moved by" not in run.format_table(rows(decode=1.0), {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not there"),
        ("", "is no table"),
        ("[1, 2]", "is no table"),
        ('{"cases": {"decode": {"ms": 3}}, "settings": {}}', "is no table"),
        ('{"cases": {"decode": {"units": "x"}}, "settings": {}}', "is no table"),
        ('{"cases": {"decode": {"units": 0}}, "settings": {}}', "not positive"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_and_measuring_goes_on(
    text, said, tmp_path, monkeypatch, caplog, capsys
):
    path = tmp_path / "table.json"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(quick, "cases", lambda device: {})
    monkeypatch.setattr(quick, "measure", lambda *_: rows(decode=1.0))
    run.compare(run.Options(quick=True, table=path, threads=torch.get_num_threads()))
    assert f"{path} {said}" in caplog.text or f"{path} has units" in caplog.text
    assert len(caplog.records) == 1
    assert "| decode | 100.0 | 1.000 | new | |" in capsys.readouterr().out


def test_a_busy_machine_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(quick, "cases", lambda device: {})
    monkeypatch.setattr(quick, "measure", lambda *_: rows(decode=1.0))
    monkeypatch.setattr(timing, "free_share", lambda threads: 0.4)
    threads = torch.get_num_threads()
    run.compare(run.Options(quick=True, store=True, table=tmp_path / "table.json", threads=threads))
    assert "others use the cores (40% is left)" in caplog.text


def test_what_is_stored_is_read_again(tmp_path, monkeypatch, caplog, capsys):
    path = tmp_path / "table.json"
    monkeypatch.setattr(quick, "cases", lambda device: {})
    monkeypatch.setattr(quick, "measure", lambda *_: rows(decode=1.0))
    threads = torch.get_num_threads()
    run.compare(run.Options(quick=True, store=True, table=path, threads=threads))
    assert {"hardware", "torch", "date", "threads", "precision"} <= set(
        json.loads(path.read_text())["settings"]
    )
    assert run.read_table(path)[0] == {"decode": 1.0}
    run.compare(run.Options(quick=True, table=path, threads=threads))
    assert "nothing moved" in capsys.readouterr().out
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    run.compare(run.Options(quick=True, table=path, threads=threads))
    assert "the table is of device cuda, not cpu" in caplog.text


def test_units_are_times_of_the_unit(monkeypatch):
    monkeypatch.setattr(quick, "seconds", lambda work, device: (work(), 1.0)[1])
    calls = []
    measured = quick.measure({"one": lambda: calls.append(1)}, 3, "cpu")
    assert measured == {"one": {"ms": 1e3, "units": 1.0}}
    assert len(calls) == 2 + 3  # a warm-up, a try, three rounds


def test_the_unit_is_a_product_of_any_precision(monkeypatch):
    monkeypatch.setattr(timing, "SIDE", 64)  # bfloat16 is emulated on some processors
    assert seconds(product()) > 0
    assert product(dtype=torch.bfloat16)().dtype == torch.bfloat16


@pytest.mark.parametrize("fast", [True, False])
def test_bf16_is_left_out_where_it_is_emulated(fast, monkeypatch, caplog):
    monkeypatch.setattr(timing, "multiplies_bf16", lambda device: fast)
    dtypes = measurable(("float32", "bf16", "auto"), "cpu")
    best = torch.bfloat16 if fast else torch.float32
    assert dtypes == ([torch.float32, torch.bfloat16, best] if fast else [torch.float32, best])
    assert ("bf16 is left out" in caplog.text) is not fast
    for name in ("fixing", "rasterizing", "optimising", "learning", "drawing"):
        monkeypatch.setattr(quick, name, lambda device, *dtype: dict.fromkeys(dtype))
    assert list(quick.cases("cpu")) == dtypes[: 1 + fast]
