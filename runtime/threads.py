# OpenMP settings for torch and numba, made once, before torch is loaded.
from __future__ import annotations

import os
import sys

POLICY = "OMP_WAIT_POLICY"


def configure_threads() -> None:
    """Set how OpenMP's threads wait, unless the user has set OMP_WAIT_POLICY.

    torch and numba share one OpenMP; their threads must not spin for long between two kernels, or
    each takes the cores from the other (five times the time on a busy machine). Spinning for some
    microseconds bridges most gaps (a fifth less time than sleeping at once). OpenMP reads the
    settings when torch is loaded, so a program that has loaded torch already is started again.

    OMP_NUM_THREADS, if set, also becomes numba's number of threads.
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
