# Kernels compiled in other processes, and where numba cannot cache.
import os
import subprocess
import sys

from tests.conftest import ROOT

MODULE = """
from runtime.kernels import WarmUp, compile_ahead, is_cached, kernel, wait_for_kernels

@kernel()
def double(x):
    return 2 * x

@kernel()
def half(x):
    return x / 2

def compile_double():
    double(1.0)

def compile_half():
    half(1.0)

WARM_UPS = WarmUp(compile_double, (double,)), WarmUp(compile_half, (half,))
"""


def run(folder, code: str, **settings: str) -> subprocess.CompletedProcess:
    (folder / "toy.py").write_text(MODULE)
    return subprocess.run(
        [sys.executable, "-c", "import logging; logging.basicConfig(); from toy import *; " + code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", **settings},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_other_processes_fill_the_cache(tmp_path):
    done = run(
        tmp_path,
        "assert not is_cached(double)\n"
        "compile_ahead(*WARM_UPS); compile_ahead(*WARM_UPS); wait_for_kernels()\n"
        "assert is_cached(double) and is_cached(half)\n"
        "assert double(1.0) + half(1.0) == 2.5\n"
        "assert sum(double.stats.cache_hits.values()) == sum(half.stats.cache_hits.values()) == 1",
    )
    assert done.returncode == 0, done.stderr
    assert "CPU (once" not in done.stderr  # nothing was compiled here


def test_changed_file_is_compiled_again(tmp_path):
    assert run(tmp_path, "double(1.0); assert is_cached(double)").returncode == 0
    done = run(tmp_path, "import os; os.utime('toy.py'); assert not is_cached(double)")
    assert done.returncode == 0, done.stderr


def test_compiling_is_said_once(tmp_path):
    done = run(tmp_path, "double(1.0); half(1.0)")
    assert done.stderr.count("compiling kernels for the CPU (once; up to a minute)") == 1
    assert run(tmp_path, "double(1.0); half(1.0)").stderr == ""


def test_without_a_cache_each_process_compiles(tmp_path):
    """numba's own answer is an error at the import."""
    nowhere = "exec(compile(open('toy.py').read(), 'nowhere.py', 'exec'))\n"
    calls = "assert double(1.0) == 2; compile_ahead(*WARM_UPS); wait_for_kernels()"
    done = run(tmp_path, nowhere + calls)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR=FOLDER") == 1


def test_processes_end_with_the_command(tmp_path):
    done = run(
        tmp_path,
        "import runtime.kernels as k; compile_ahead(*WARM_UPS); print(k._processes[0].pid)",
    )
    pid = int(done.stdout)
    assert subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode == 1
