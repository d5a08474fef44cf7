# OpenMP settings: made once, before torch loads, and never against the user's.
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.threads import configure_threads

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


@pytest.fixture
def environment(monkeypatch):
    """os.environ without settings of OpenMP, and torch as if not loaded yet."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started again"))
    return os.environ


def test_threads_sleep_after_a_short_spin(environment):
    configure_threads()
    assert environment["OMP_WAIT_POLICY"] == "passive" and environment["GOMP_SPINCOUNT"] == "1000"
    assert "NUMBA_NUM_THREADS" not in environment


def test_the_user_s_settings_win(environment):
    environment |= {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "3", "NUMBA_NUM_THREADS": "2"}
    configure_threads()
    assert environment["OMP_WAIT_POLICY"] == "active" and "GOMP_SPINCOUNT" not in environment
    assert environment["NUMBA_NUM_THREADS"] == "2"
    del environment["OMP_WAIT_POLICY"]
    environment["GOMP_SPINCOUNT"] = "7"
    configure_threads()
    assert environment["GOMP_SPINCOUNT"] == "7"


def test_numba_follows_the_number_of_threads(environment):
    environment["OMP_NUM_THREADS"] = "3"
    configure_threads()
    assert environment["NUMBA_NUM_THREADS"] == "3"


def test_a_program_that_has_loaded_torch_is_started_again_once():
    code = (
        "import sys, types\n"
        "print('started', flush=True)\n"
        "sys.modules['torch'] = types.ModuleType('torch')\n"
        "from runtime.threads import configure_threads\n"
        "configure_threads()\n"
        "print('done', *sys.argv[1:])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    out = subprocess.check_output(
        [sys.executable, "-c", code, "an argument"], cwd=ROOT, env=environment, text=True
    )
    assert out.split("\n") == ["started", "started", "done an argument", ""]
