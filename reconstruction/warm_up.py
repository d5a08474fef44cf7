# What an optimisation on the CPU needs of numba, the longest first.
from reconstruction.losses import PHOTOMETRIC
from reconstruction.optimizer import UPDATE
from splats.cpu.noise import NOISE
from splats.cpu.warm_up import BLENDING, PROJECTION

OPTIMISATION = PROJECTION, BLENDING, PHOTOMETRIC, UPDATE, NOISE
