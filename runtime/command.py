# The frame of every command line: logging, exit codes, and one sentence for a user's mistake.
from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime.interrupts import handled_signals
from runtime.threads import configure_threads

if TYPE_CHECKING:
    import torch


def run_command(main: Callable[[], None]) -> None:
    """Run `main` with OpenMP configured; a user's mistake becomes one sentence and exit code 2.

    Mistakes are ValueError, OSError and a lack of memory. Ctrl-C exits with 130, SIGTERM and
    SIGUSR1 with 143, and a closed pipe (head) with 141. With TRACEBACK=1 in the environment
    tracebacks are shown. Call it before torch is loaded, see runtime.threads.
    """
    configure_threads()
    from tqdm.contrib.logging import logging_redirect_tqdm

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("torch").setLevel(logging.WARNING)  # it counts its caches when it ends
    try:
        with handled_signals(at_once=True), logging_redirect_tqdm():
            main()
    except (KeyboardInterrupt, SystemError) as error:
        # numba wraps an interrupt that meets it while it loads a kernel
        stop = error.__cause__ if isinstance(error, SystemError) else error
        if not isinstance(stop, KeyboardInterrupt):
            raise
        sys.stderr.write("\nstopped\n")
        sys.exit(getattr(stop, "code", 130))
    except BrokenPipeError:  # whoever read the output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (OSError, ValueError, MemoryError, RuntimeError) as error:
        text = _explain(error)
        if text is None or os.environ.get("TRACEBACK"):
            raise
        sys.stderr.write(f"error: {' '.join(text.split())}\n")
        sys.exit(2)


def choose_device(name: str | None) -> torch.device:
    """The named device, by default cuda if available, else cpu; ValueError if there is no such."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name} is not a device; use cuda, cuda:1 or cpu") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name} is not supported; use cuda, cuda:1 or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}, but no such GPU is available; use --device cpu")
    return device


def _explain(error: Exception) -> str | None:
    """The message for the user; None for a bug."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, OSError | ValueError):
        return str(error)
    # torch has a class of its own on CUDA and a plain RuntimeError from its CPU allocator
    lacks_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if lacks_memory or "not enough memory" in str(error) or "can't allocate memory" in str(error):
        return (
            "the memory is not enough; use smaller photos (--data_factor), fewer at a time, or "
            f"fewer Gaussians (mcmc with --strategy.cap-max) [{error}]"
        )
    return None
