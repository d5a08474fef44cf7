# Kernels of the CPU, which numba compiles at their first call: seconds for each, one after another
# in a process. Its cache keeps them; here they get into it, several processes at work.
from __future__ import annotations

import atexit
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import event
from numba.core.dispatcher import Dispatcher

from runtime.progress import ProgressBar

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
POLL = 0.2  # seconds


def kernel(**options: Any) -> Callable[[Callable], Dispatcher]:
    """A decorator: numba's njit with these options, without the interpreter's lock, cached.

    Where neither the file's folder nor the user's cache can be written to, numba refuses to cache
    instead of going without; then the kernel is compiled in each process, which is said once.
    """
    options = {"error_model": "numpy", "nogil": True} | options

    def declare(function: Callable) -> Dispatcher:
        try:
            declared = njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            _say_once(
                "kernels for the CPU cannot be kept, and each command compiles them again (up to a "
                "minute): NUMBA_CACHE_DIR=FOLDER names a folder that can be written to"
            )
            declared = njit(**options)(function)
        _kernels.add(declared)
        return declared

    return declare


@dataclass(frozen=True)
class WarmUp:
    """A function of a module that calls some kernels with arguments of the usual types."""

    call: Callable[[], None]
    kernels: tuple[Dispatcher, ...]


def compile_ahead(*warm_ups: WarmUp) -> None:
    """Begin to compile what the cache lacks, in processes of their own; they end with this one.

    A kernel that is called earlier is compiled twice; see `wait_for_kernels`.
    """
    cacheable = (w for w in warm_ups if all(k.stats.cache_path for k in w.kernels))
    lacking = [w for w in cacheable if w not in _begun and not all(map(is_cached, w.kernels))]
    if not lacking:
        return
    _begun.extend(lacking)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    count = min(len(lacking), len(os.sched_getaffinity(0)))
    for mine in (lacking[i::count] for i in range(count)):
        calls = ((w.call.__module__, w.call.__name__) for w in mine)
        code = "; ".join(f"import {module}; {module}.{name}()" for module, name in calls)
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # what goes wrong there will go wrong here, and be shown
        )
        atexit.register(process.kill)
        _processes.append(process)


def wait_for_kernels() -> None:
    """Wait, with progress, for what `compile_ahead` began."""
    kernels = [k for w in _begun for k in w.kernels]
    if all(process.poll() is not None for process in _processes):
        return
    with ProgressBar(desc="compiling kernels", total=len(kernels), unit="kernel") as bar:
        bar.set_postfix_str("once")
        while any(process.poll() is None for process in _processes):
            bar.update(sum(map(is_cached, kernels)) - bar.n)
            time.sleep(POLL)
        bar.update(sum(map(is_cached, kernels)) - bar.n)


def is_cached(declared: Dispatcher) -> bool:
    """Whether numba's cache has the kernel, compiled since its file was last changed."""
    code = declared.py_func.__code__
    name, version = declared.py_func.__qualname__, "{}{}".format(*sys.version_info)
    indices = Path(declared.stats.cache_path).glob(
        f"*.{name}-{code.co_firstlineno}.py{version}*.nbi"
    )
    changed = Path(code.co_filename).stat().st_mtime
    return any(index.stat().st_mtime >= changed for index in indices)


_kernels: set[Dispatcher] = set()
_begun: list[WarmUp] = []
_processes: list[subprocess.Popen] = []
_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        log.warning(text)


class _Announcer(event.Listener):
    """Says why a command stands still when a kernel must be compiled now."""

    def on_start(self, event: event.Event) -> None:
        dispatcher = event.data["dispatcher"]
        if dispatcher in _kernels and dispatcher.stats.cache_path:
            _say_once("compiling kernels for the CPU (once; up to a minute)")

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcer())
