# Each of these commands tells what it does.
import sys

import pytest

from benchmarks import growth, run, scaling


@pytest.mark.parametrize("module", [growth, run, scaling])
def test_help(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code in (0, None)
    assert f"usage: python -m {module.__name__}" in capsys.readouterr().out
