# Ctrl-C without loss: the step in hand is finished before anything stops.
from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interrupt:
    """requested: whether Ctrl-C (or a polite kill) has come."""

    requested: bool = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within the block the first Ctrl-C or SIGTERM only sets a flag; a second one acts at once.

    Outside the main thread, where Python has no signals, the flag stays unset.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        interrupt.requested = True
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        restore()
