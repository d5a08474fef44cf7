# Threads that wait must sleep: the pools of torch and of numba otherwise spin against each other,
# and on a busy CPU a step takes several times longer. Read once, when either pool is first loaded.
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
