# Two runs in one folder: the second is refused, and a lock goes with its process.
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.lock import NAME, locked_folder

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from runtime.lock import locked_folder
with locked_folder(sys.argv[1], "wait"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def another_run_in(folder):
    """A process that holds the folder's lock."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        if process.poll() is None:
            process.communicate("end\n")


def test_the_second_is_refused_and_told_by_whom(tmp_path):
    folder = tmp_path / "run"
    with another_run_in(folder) as process:
        with pytest.raises(ValueError) as error, locked_folder(folder, "choose another --folder"):
            pytest.fail("was not refused")
        assert str(error.value) == (
            f"{folder} is in use by another run (process {process.pid} on "
            f"{socket.gethostname()}): wait for it, stop it, or choose another --folder"
        )
    with locked_folder(folder, ""):
        (folder / "result").touch()
    assert [file.name for file in folder.iterdir()] == ["result"]


def test_a_killed_process_leaves_no_lock(tmp_path):
    with another_run_in(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / NAME).exists()
        with locked_folder(tmp_path, ""):
            assert f"process {process.pid} " not in (tmp_path / NAME).read_text()
    assert tmp_path.is_dir() and not any(tmp_path.iterdir())


def test_a_folder_that_got_nothing_is_removed(tmp_path):
    with pytest.raises(RuntimeError), locked_folder(tmp_path / "a" / "b", ""):
        raise RuntimeError
    assert not (tmp_path / "a" / "b").exists()
