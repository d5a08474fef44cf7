# What every command does around its work: plain logging, and one sentence for a user's mistake.
from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from tqdm.contrib.logging import logging_redirect_tqdm


def run_command(main: Callable[[], None]) -> None:
    """Run `main`; a ValueError or OSError becomes one sentence and exit code 2, Ctrl-C code 130.

    With TRACEBACK=1 in the environment the traceback is shown instead.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        with logging_redirect_tqdm():
            main()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        sys.exit(130)
    except (OSError, ValueError) as error:
        if os.environ.get("TRACEBACK"):
            raise
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        sys.stderr.write(f"error: {text}\n")
        sys.exit(2)
