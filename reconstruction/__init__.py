from reconstruction.config import Config, default, mcmc
from reconstruction.evaluate import EvaluationConfig
from reconstruction.optimise import optimise
from reconstruction.start import Start

__all__ = ["Config", "EvaluationConfig", "Start", "default", "mcmc", "optimise"]
