# Tasks in worker processes: one that fails or dies is reported, and the others go on.
from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from runtime.progress import ProgressBar

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]
Work = Callable[[Any, int, Report], str]
QUIET = 0.5  # seconds between two reports of one worker


def run_in_workers(work: Work, tasks: Mapping[str, Any], workers: int = 1) -> dict[str, str]:
    """Call `work(task, worker, report)` for every task; returns failures: name -> one sentence.

    `work` must be a module's function; it returns a log line and may call `report(done, total)`.
    Each task logs a line when it ends; a running one has a progress bar. The workers are spawned
    and share the machine's cores. If a worker dies, only its task fails.
    """
    waiting = deque(tasks.items())
    failures: dict[str, str] = {}
    ended = 0
    slots: dict[int, _Worker] = {}
    try:
        for slot in range(min(workers, len(tasks))):
            slots[slot] = _Worker.start(work, slot, workers)
            slots[slot].give(*waiting.popleft())
        while slots:
            by_connection = {worker.connection: slot for slot, worker in slots.items()}
            for connection in wait(list(by_connection)):
                slot = by_connection[connection]
                worker = slots[slot]
                kind, value = worker.receive()
                if kind == "progress":
                    worker.show(*value)
                    continue
                ended += 1
                worker.clear()
                log.info("[%d/%d] %s: %s", ended, len(tasks), worker.name, value)
                if kind != "done":
                    failures[worker.name] = value
                if kind == "died" and waiting:
                    slots[slot] = worker = _Worker.start(work, slot, workers)
                if waiting:
                    worker.give(*waiting.popleft())
                else:
                    slots.pop(slot).stop()
    finally:
        for worker in slots.values():
            worker.clear()
            worker.process.terminate()
            worker.process.join(10)
    return failures


@dataclass
class _Worker:
    """A process, our end of its pipe, and the name of its current task."""

    process: BaseProcess
    connection: Connection
    slot: int
    name: str = ""
    bar: ProgressBar | None = None

    @classmethod
    def start(cls, work: Work, slot: int, workers: int) -> _Worker:
        import torch

        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        cores = min(len(os.sched_getaffinity(0)), torch.get_num_threads())  # OMP_NUM_THREADS
        threads = max(1, cores // workers)
        process = context.Process(target=_serve, args=(theirs, work, slot, threads), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the process
        return cls(process, ours, slot)

    def give(self, name: str, task: Any) -> None:
        self.name = name
        with suppress(OSError):  # a dead worker is noticed by `receive`
            self.connection.send(task)

    def receive(self) -> tuple[str, Any]:
        """("progress", numbers), ("done", line), ("failed", sentence) or ("died", sentence)."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join(10)
            code = self.process.exitcode
            why = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            return "died", f"failed: its process ended ({why}); is the memory enough?"

    def show(self, done: int, total: int) -> None:
        if self.bar is None:
            self.bar = ProgressBar(
                desc=self.name[:24], total=total, position=self.slot, leave=False
            )
        self.bar.update(done - self.bar.n)

    def clear(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def stop(self) -> None:
        self.connection.close()
        self.process.join(10)


def _serve(connection: Connection, work: Work, slot: int, threads: int) -> None:
    """The loop of a worker: task after task until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    logging.getLogger().addHandler(logging.NullHandler())  # done.json contains the notes
    _limit_threads(threads)
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > QUIET:
            last = time.monotonic()
            connection.send(("progress", (done, total)))

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            answer = ("done", work(task, slot, report))
        except BrokenPipeError:
            return  # nobody listens any more
        except Exception as error:
            if os.environ.get("TRACEBACK"):
                traceback.print_exc()
            answer = ("failed", f"failed: {_sentence(error)}")
        connection.send(answer)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    known = isinstance(error, ValueError | OSError)
    return text if known else f"{type(error).__name__}: {text} (TRACEBACK=1 shows where)"


def _limit_threads(threads: int) -> None:
    import numba
    import torch

    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
