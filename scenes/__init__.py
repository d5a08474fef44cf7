# Captures on disk -> Scene.
import os

# Threads of torch and numba share one OpenMP; they must sleep, not spin, between two kernels, or
# each takes the cores from the other (five times the time on a busy machine). Read once, as torch
# loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from scenes.cameras import Cameras
from scenes.loading import load
from scenes.scene import Scene, Split

__all__ = ["Cameras", "Scene", "Split", "load"]
