# Signals: deferred, acting at once where a block may be left, and kept from child processes.
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from runtime import interrupts
from runtime.interrupts import Stopped, deferred_interrupt, handled_signals, interruptible
from tests.conftest import GUARD

ROOT = Path(__file__).parents[2]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_deferred_signal_is_only_noted(number):
    before = signal.getsignal(number)
    with deferred_interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        assert interrupt.requested
        signal.raise_signal(number)  # as torchrun sends on what a group has received
        with pytest.raises(Stopped) as stop:
            interrupt.check()
    assert stop.value.code == (130 if number == signal.SIGINT else 143)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_acts_at_once_and_a_second_kill_does_not(monkeypatch):
    monkeypatch.setattr(interrupts, "FORWARDED", 0)
    with deferred_interrupt():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_a_block_that_may_be_left_is_left():
    with deferred_interrupt() as interrupt:
        with pytest.raises(Stopped), interruptible():
            signal.raise_signal(signal.SIGUSR1)
            pytest.fail("went on")
        signal.raise_signal(signal.SIGUSR1)
        assert interrupt.requested
        with pytest.raises(Stopped), interruptible():
            pytest.fail("began, in spite of an earlier signal")
    with interruptible():  # nothing is deferred
        pass


def test_what_a_signal_makes_of_a_kernel_is_the_signal():
    with deferred_interrupt() as interrupt:
        with pytest.raises(Stopped), interruptible():
            try:
                signal.raise_signal(signal.SIGTERM)
            except Stopped:
                raise SystemError("returned a result with an exception set") from None
        assert interrupt.requested
    with deferred_interrupt(), pytest.raises(SystemError), interruptible():
        raise SystemError("something else")


def test_a_signal_that_a_destructor_swallowed_is_not_lost():
    with deferred_interrupt(), pytest.raises(Stopped), interruptible(), suppress(Stopped):
        signal.raise_signal(signal.SIGTERM)


def test_signals_act_at_once_around_and_between_deferred_blocks():
    with handled_signals(at_once=True):
        with deferred_interrupt() as interrupt:
            signal.raise_signal(signal.SIGTERM)
            assert interrupt.requested
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)


def test_handlers_return_after_an_error():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError), deferred_interrupt():
        raise RuntimeError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_run_without_handlers():
    requested = []

    def work():
        with deferred_interrupt() as interrupt, interruptible():
            requested.append(interrupt.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert requested == [False]


PARENT = """
import multiprocessing, os, sys, time
from runtime.interrupts import leave_with_parent, shielded_children

def work():
    leave_with_parent()
    os.write(1, b"ready\\n")
    time.sleep(3600)

with shielded_children():
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
os.write(1, b"%d\\n" % child.pid)
sys.stdin.readline()
child.terminate()
child.join()
os.write(1, b"terminated\\n")
"""


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_shielded_child_leaves_with_its_parent_only(end):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    lines = sorted(parent.stdout.readline().strip() for _ in range(2))
    assert lines[1] == "ready"
    child = int(lines[0])
    for number in SIGNALS:
        os.kill(child, number)
    time.sleep(0.2)
    assert is_alive(child)
    if end == "kill":
        parent.kill()
        parent.wait()
    else:
        assert parent.communicate("go\n", timeout=GUARD)[0] == "terminated\n"
    until = time.monotonic() + GUARD
    while is_alive(child):
        assert time.monotonic() < until
        time.sleep(0.05)
