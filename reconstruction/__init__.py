import scenes  # first, before torch loads: it sets how threads wait  # noqa: F401
from reconstruction.config import Config, default, mcmc
from reconstruction.evaluate import EvaluationConfig
from reconstruction.optimise import evaluate_only, optimise
from reconstruction.rounds.rounds import FixerInUse
from reconstruction.rounds.settings import FixConfig, original
from reconstruction.start import Start

__all__ = [
    "Config",
    "EvaluationConfig",
    "FixConfig",
    "FixerInUse",
    "Start",
    "default",
    "evaluate_only",
    "mcmc",
    "optimise",
    "original",
]
