# What commands load before they show their help, and rooms when they are imported: modules are
# counted here, times in benchmarks/startup.py.
import json
import os
import subprocess
import sys

import pytest

from benchmarks.startup import COMMANDS, ROOMS
from tests.conftest import ROOT

NEVER = {"pycolmap", "cv2", "viser", "lpips", "torchmetrics", "matplotlib", "torchvision"}
NEVER |= {"numba", "scipy", "wandb", "torch._dynamo", "gaussforge", "gradio"}
SHOW = """
import json, runpy, sys
kind, name, *rest = json.loads(sys.argv[1])
sys.argv = [name, *rest]
try:
    if kind == "-c":
        exec(name)
    elif kind == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(name, run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
print(json.dumps(sorted(sys.modules)))
"""


def loaded(*command: str) -> set[str]:
    """The modules of a Python process after a command."""
    command = command if command[0] in ("-m", "-c") else ("script", *command)
    done = subprocess.run(
        [sys.executable, "-c", SHOW, json.dumps(command)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_loads_no_heavy_package(command):
    assert loaded(*command) & NEVER == set()


def test_rooms_load_nothing_heavy():
    """All of them in one process; their public names load what they need at their first use."""
    modules = loaded("-c", "; ".join(f"import {room}" for room in ROOMS))
    assert modules & (NEVER | {"torch", "numpy", "PIL"}) == set()


def test_fixers_load_neither_colmap_nor_opencv():
    modules = loaded("-c", "import fixers; fixers.load; fixers.NAMES; fixers.Fixer")
    assert modules & {"pycolmap", "cv2", "viser", "matplotlib", "torchvision"} == set()
