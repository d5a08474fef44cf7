# Progress bars: tqdm's on a terminal; plain lines, now and then, in a file or a pipe.
from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

EVERY = 30.0  # seconds between two plain lines
WIDTH, HEIGHT = 80, 24  # of a terminal that does not tell
PLAIN = "{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class ProgressBar(tqdm):
    """tqdm with its parameters. Where output is no terminal, whole lines take the place of a bar
    that is drawn again and again: one every 30 seconds, none for shorter work.
    """

    def __init__(self, iterable: Iterable | None = None, *args: Any, **options: Any) -> None:
        file = options.get("file") or sys.stderr
        self.plain = not file.isatty()
        if not self.plain and not os.get_terminal_size(file.fileno()).columns:
            # a terminal that has no size yet
            options |= {"ncols": WIDTH, "nrows": HEIGHT, "dynamic_ncols": False}
        if self.plain:
            options |= {"bar_format": PLAIN, "mininterval": EVERY, "maxinterval": EVERY}
        self.shown = time.monotonic()
        super().__init__(iterable, *args, **{"dynamic_ncols": True, **options})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write a line if the last one is old enough."""
        if not self.plain:
            super().display(msg, pos)
        elif time.monotonic() - self.shown >= EVERY:
            self.shown = time.monotonic()
            self.fp.write(f"{self}\n")
            self.fp.flush()

    def clear(self, nolock: bool = False) -> None:
        """Make room for another line; plain lines stay."""
        if not self.plain:
            super().clear(nolock)

    def close(self) -> None:
        """End the bar; what took long has a last line."""
        if not self.plain:
            super().close()
        elif not self.disable:
            self.disable = True
            self._decr_instances(self)
            if self.leave and self.format_dict["elapsed"] >= EVERY:
                self.fp.write(f"{self}\n")
                self.fp.flush()
