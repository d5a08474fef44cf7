# Bars on a terminal, plain lines elsewhere.
import fcntl
import io
import logging
import os
import pty
import select
import struct
import termios

import pytest
from tqdm.contrib.logging import logging_redirect_tqdm

import runtime.progress
from runtime.progress import ProgressBar


@pytest.fixture
def at_once(monkeypatch):
    """A plain line for each step instead of one every 30 seconds."""
    monkeypatch.setattr(runtime.progress, "EVERY", 0.0)


def test_short_work_leaves_a_file_empty():
    file = io.StringIO()
    for _ in ProgressBar(range(100), "working", file=file):
        pass
    with ProgressBar(total=3, file=file) as bar:
        bar.update(2)
        bar.set_postfix(loss=1)
        bar.refresh()
    assert file.getvalue() == ""


def test_long_work_is_whole_lines(at_once):
    file = io.StringIO()
    with ProgressBar(total=4, desc="working", unit="step", file=file) as bar:
        for _ in range(4):
            bar.update()
            bar.set_postfix(loss=0.5, refresh=True)
    lines = file.getvalue().splitlines()
    assert "\r" not in file.getvalue() and "\x1b" not in file.getvalue()
    assert all(line.startswith("working: ") and line.endswith("]") for line in lines)
    assert lines[-1].startswith("working: 4/4 [00:00<00:00, ") and lines[-1].endswith("loss=0.5]")


def test_bars_that_go_leave_no_last_line(at_once):
    file = io.StringIO()
    with ProgressBar(total=1, file=file, leave=False):
        pass
    assert "1/1" not in file.getvalue()


def test_log_lines_between_draw_nothing_again(monkeypatch):
    """tqdm's own way writes the bar once more after every line of the log."""
    file = io.StringIO()
    log = logging.getLogger("some.part")
    log.setLevel("INFO")
    log.addHandler(logging.StreamHandler(file))
    with logging_redirect_tqdm([log]), ProgressBar(total=2, file=file) as bar:
        bar.update()
        log.info("between")
        bar.update()
    assert file.getvalue() == "between\n"


@pytest.mark.parametrize("columns", [80, 0])
def test_terminal_has_a_bar(columns):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24 if columns else 0, columns, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        with ProgressBar(total=2, desc="working", file=terminal) as bar:
            bar.update(2)
        shown = ""
        while "100%" not in shown:  # a read gives what has arrived, perhaps not all
            assert select.select([ours], [], [], 10)[0], shown
            shown += os.read(ours, 10_000).decode()
    assert "\rworking: 100%|" in shown


def test_disabled_writes_nothing(at_once):
    file = io.StringIO()
    for _ in ProgressBar(range(3), file=file, disable=True):
        pass
    assert file.getvalue() == ""
