import runpy
import sys
from pathlib import Path

import pytest

from runtime.threads import configure_threads

configure_threads()  # before torch loads

ROOT = Path(__file__).parent.parent
GUARD = 3600  # seconds after which a process counts as hanging; nothing is expected to be quick


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
