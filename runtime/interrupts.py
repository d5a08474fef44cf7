# Ctrl-C without loss: the current step is finished before the program stops.
from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Interrupt:
    """requested: whether Ctrl-C or SIGTERM has been received."""

    requested: bool = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Within the block the first Ctrl-C or SIGTERM only sets a flag; a second one acts at once.

    Outside the main thread, where Python handles no signals, the flag is never set.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def reset_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request(number: int, frame: object) -> None:
        interrupt.requested = True
        reset_handlers()

    for number in SIGNALS:
        signal.signal(number, request)
    try:
        yield interrupt
    finally:
        reset_handlers()
