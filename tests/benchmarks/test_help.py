# Each of these commands tells what it does, and refuses what makes no sense before it begins.
import sys

import pytest
import torch

from benchmarks import run, timing
from benchmarks.quality import corrections, splat_formats
from benchmarks.speed import efficient_lvsm, engine, growth, loading, losses, scaling, training


@pytest.mark.parametrize(
    "module",
    [corrections, efficient_lvsm, engine, growth, loading, losses, run, scaling, splat_formats],
)
def test_help(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code in (0, None)
    assert f"usage: python -m {module.__name__}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "arguments", "sentence"),
    [
        (corrections, "--stops 0", "--stops 0.0: give a positive number"),
        (corrections, "/nowhere", "/nowhere is not the folder of a capture"),
        (efficient_lvsm, "--counts 4 0", "--counts 4 0: give at least 1 photo"),
        (efficient_lvsm, "--size 100", "--size 100: give a multiple of 8"),
        (engine, "--repeats 0", "--repeats 0: give at least 1"),
        (engine, "--dtypes int8", "dtype must be"),
        (engine, "--device nonsense", "--device nonsense is not a device"),
        (growth, "--points 0", "--points 0: give at least 1"),
        (loading, "--photos 2", "--photos 2: give at least 3"),
        (loading, "--factor 0", "--factor 0: give at least 1"),
        (losses, "--repeats 0", "--repeats 0: give at least 1"),
        (run, "--quick --threads 0", "--threads 0: give at least 1"),
        (run, "--quick --rounds 0", "--rounds 0: give at least 1"),
        (scaling, "--steps 2", "--steps 2: give at least 4"),
        (splat_formats, "--count 1", "--count 1: give at least 2"),
        (splat_formats, "--splat_transform none", "--splat_transform none is not a command"),
    ],
)
def test_mistakes_are_told_first(module, arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", *arguments.split()])
    with pytest.raises(ValueError, match=sentence):
        module.main()
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("module", [efficient_lvsm, engine, growth, run])
def test_a_gpu_that_is_not_there_is_told(module, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--device", "cuda"])
    with pytest.raises(ValueError, match="no such GPU is available"):
        module.main()


def test_growth_of_emulated_bf16_is_refused(monkeypatch):
    monkeypatch.setattr(timing, "multiplies_bf16", lambda device: False)
    monkeypatch.setattr(sys, "argv", ["x", "--dtype", "bf16"])
    with pytest.raises(ValueError, match="--dtype bf16 would be emulated here: use float32"):
        growth.main()


def test_an_unknown_preset_is_told():
    for benchmark in (training, scaling):
        with pytest.raises(ValueError, match="--preset none: choose original-d24"):
            benchmark.Options(preset="none")
