# How the threads of torch and numba wait for each other; set once, before torch loads.
from __future__ import annotations

import os
import sys

POLICY = "OMP_WAIT_POLICY"


def configure_threads() -> None:
    """Choose how OpenMP's threads wait, where the user has not.

    Threads of torch and numba share one OpenMP; they must not spin for long between two kernels, or
    each takes the cores from the other (five times the time on a busy machine). Some microseconds
    bridge most gaps: a fifth less time than sleeping at once. OpenMP reads this as torch loads, so
    a program that has loaded torch already is started again.
    """
    # numba tells that OpenMP its own number of threads, and torch would go on with it
    if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
        os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
    if POLICY in os.environ:
        return
    os.environ[POLICY] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if "torch" in sys.modules:
        os.execv(sys.executable, sys.orig_argv)
