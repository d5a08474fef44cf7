# The frame of every command line: exit codes and messages, and the choice of a device.
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from runtime.command import choose_device, run_command


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (ValueError("--flag 3 is odd; give 2"), "error: --flag 3 is odd; give 2\n", 2),
        (FileNotFoundError(2, "No such file", "a.txt"), "error: a.txt: No such file\n", 2),
        (ValueError("a\nb"), "error: a b\n", 2),
        (KeyboardInterrupt(), "\nstopped\n", 130),
    ],
)
def test_a_users_mistake_is_one_sentence(error, text, code, capsys, monkeypatch):
    monkeypatch.delenv("TRACEBACK", raising=False)

    def main():
        raise error

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert (stop.value.code, capsys.readouterr().err) == (code, text)


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: sys.maxsize / 0)
    monkeypatch.setenv("TRACEBACK", "1")
    with pytest.raises(ValueError, match="shown"):
        run_command(lambda: (_ for _ in ()).throw(ValueError("shown")))


def test_a_lack_of_memory_says_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("TRACEBACK", raising=False)
    for huge in (lambda: torch.empty(2**60), lambda: np.empty(2**56)):
        with pytest.raises(SystemExit) as stop:
            run_command(huge)
        assert stop.value.code == 2 and "use smaller photos" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="shape"):
        run_command(lambda: torch.zeros(2) @ torch.zeros(3, 3, 3).reshape(2, 2))


def test_a_reader_that_goes_ends_the_command_quietly():
    code = """
import sys
from runtime.command import run_command
def main():
    for i in range(100_000):
        print("line", i)
run_command(main)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""


def test_an_interrupt_that_numba_wraps_is_an_interrupt(capsys):
    def main():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemError("CPUDispatcher returned a result with an exception set") from error

    def broken():
        raise SystemError("something else")

    with pytest.raises(SystemExit) as stop:
        run_command(main)
    assert stop.value.code == 130 and "stopped" in capsys.readouterr().err
    with pytest.raises(SystemError, match="something else"):
        run_command(broken)


def test_a_kill_ends_a_command_with_143():
    code = "import signal\nfrom runtime.command import run_command\nrun_command(signal.pause)"
    process = subprocess.Popen(
        [sys.executable, "-c", f"print(1, flush=True)\n{code}"], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip
    process.stdout.readline()
    while process.poll() is None:  # it may come before the handler: then the default applies
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode in (143, -signal.SIGTERM)


def test_a_device_is_chosen_or_named():
    assert choose_device(None).type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("gpu", "mps", f"cuda:{torch.cuda.device_count()}"):
        with pytest.raises(ValueError, match=f"--device {name}"):
            choose_device(name)
