# Captures on disk -> Scene.
import os

# Threads of torch and numba share one OpenMP; they must not spin for long between two kernels, or
# each takes the cores from the other (five times the time on a busy machine). Some microseconds
# bridge most gaps: a fifth less time than sleeping at once. Read once, as torch loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# numba tells that OpenMP its own number of threads, and torch would go on with it
if os.environ.get("OMP_NUM_THREADS", "").isdecimal():
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])

from scenes.cameras import Cameras
from scenes.loading import load
from scenes.scene import Scene, Split

__all__ = ["Cameras", "Scene", "Split", "load"]
