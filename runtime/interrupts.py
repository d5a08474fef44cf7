# Stopping without loss: Ctrl-C, SIGTERM (scancel, torchrun) and SIGUSR1 (Slurm's warning before a
# job's end).
from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Seconds within which a second signal is the first one once more: a process group's, sent on by
# torchrun.
FORWARDED = 1.0

_current: Interrupt | None = None  # of the innermost block that handles signals


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def code(self) -> int:
        """The exit code: 130 after Ctrl-C, else 143."""
        return 130 if self.number == signal.SIGINT else 143


class Interrupt:
    """Whether a signal was received within a block, and which (`number`).

    at_once: a signal raises Stopped. If not, it is only noted, but for a second Ctrl-C.
    """

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.number: int | None = None
        self.since = 0.0

    @property
    def requested(self) -> bool:
        """Whether a signal has been received."""
        return self.number is not None

    def check(self) -> None:
        """Raise Stopped if a signal has been received."""
        if self.number is not None:
            raise Stopped(self.number)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler."""
        first, now = self.number is None, time.monotonic()
        if first:
            self.number, self.since = number, now
        elif now - self.since < FORWARDED:
            return
        if self.at_once or (not first and number == signal.SIGINT):
            raise Stopped(number)


@contextmanager
def handled_signals(*, at_once: bool) -> Iterator[Interrupt]:
    """Within the block the signals go to an Interrupt; outside the main thread, where Python
    handles no signals, it never has any."""
    global _current
    interrupt = Interrupt(at_once)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before, outer = {number: signal.getsignal(number) for number in SIGNALS}, _current
    _current = interrupt
    try:
        for number in SIGNALS:
            # programs in a shell's background ignore Ctrl-C; they save if it comes to that
            if not (at_once and before[number] is signal.SIG_IGN):
                signal.signal(number, interrupt.receive)
        yield interrupt
    finally:
        _current = outer
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python
                signal.signal(number, handler)


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within the block the first signal is only noted; a second Ctrl-C, from a second later on,
    acts at once."""
    with handled_signals(at_once=False) as interrupt:
        yield interrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Within a `deferred_interrupt` a block that may be left anywhere: signals raise Stopped at
    once, also one that was noted before. Elsewhere it does nothing."""
    interrupt = _current
    if interrupt is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, interrupt.at_once = interrupt.at_once, True
    try:
        interrupt.check()
        yield
        interrupt.check()  # exceptions of a handler are lost where they meet a destructor
    except BaseException as error:
        if isinstance(error, Stopped) or not interrupt.requested:
            raise
        raise Stopped(interrupt.number) from error  # what a kernel made of it that it met
    finally:
        interrupt.at_once = before


# child processes ------------------------------------------------------------------------------


@contextmanager
def shielded_children() -> Iterator[None]:
    """Processes that are started within the block never see the signals: schedulers send them to
    all processes of a job, and a parent still needs its children. See `leave_with_parent`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_with_parent(*_: object) -> None:
    """In a shielded child: end when the parent has ended, or by its SIGTERM (and by nobody
    else's)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            received = signal.sigtimedwait((signal.SIGTERM,), 1.0)
            if received is not None and received.si_pid == parent:
                break
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
