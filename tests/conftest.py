import os
import runpy
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.threads import configure_threads

configure_threads()  # before torch loads

ROOT = Path(__file__).parent.parent
# LPIPS is computed only where a test names its weights (backbones_folder), on every machine.
os.environ["TORCH_HOME"] = os.environ["LPIPS_BACKBONES"] = str(ROOT / "tests" / "no_weights")
NO_PROXY_ANSWERS = "http://127.0.0.1:9"
GUARD = 3600  # seconds after which a process counts as hanging; nothing is expected to be quick


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """An empty torch hub folder and a network in which nobody answers."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, NO_PROXY_ANSWERS)
    monkeypatch.delenv("no_proxy", raising=False)
    # urlopen reads the proxies once and keeps them for the process: here afresh, then as before
    monkeypatch.setattr(urllib.request, "_opener", None)
    monkeypatch.delenv("LPIPS_BACKBONES", raising=False)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="session")
def backbones_folder():
    """A folder with the weights of LPIPS's backbones; skips where there is none."""
    from evaluation.backbones.features import FILES

    for folder in (ROOT.parent / "shared" / "backbones", ROOT / ".venv" / "backbones"):
        if all((folder / name).is_file() for name in FILES.values()):
            return folder
    pytest.skip("no weights of LPIPS's backbones, which scripts/test.sh gets")


HOLD = """
import sys
from runtime.lock import locked_folder
with locked_folder(sys.argv[1], "wait"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def run_elsewhere():
    """run_elsewhere(folder): a context in which another process has the folder's lock."""

    @contextmanager
    def hold(folder):
        command = [sys.executable, "-c", HOLD, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
            assert process.stdout.readline() == "held\n"
            yield process
            if process.poll() is None:
                process.communicate("end\n")

    return hold


@pytest.fixture
def run_script(monkeypatch, capsys, caplog):
    """run_script(folder, name, *arguments) -> exit code and output; run in the folder."""

    def run(folder, name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        monkeypatch.chdir(folder)
        caplog.clear()
        caplog.set_level("INFO")
        code = 0
        try:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        output = capsys.readouterr()
        return code, output.out + output.err + caplog.text

    return run
