# Scene -> splats: optimisation, fix and distil, evaluation.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from reconstruction.config import Config, default, mcmc
    from reconstruction.evaluate import EvaluationConfig
    from reconstruction.rounds.rounds import FixerInUse
    from reconstruction.rounds.settings import FixConfig, original
    from reconstruction.run import evaluate_only, optimise
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

__getattr__ = exports(
    Config="reconstruction.config",
    default="reconstruction.config",
    mcmc="reconstruction.config",
    EvaluationConfig="reconstruction.evaluate",
    evaluate_only="reconstruction.run",
    optimise="reconstruction.run",
    FixerInUse="reconstruction.rounds.rounds",
    FixConfig="reconstruction.rounds.settings",
    original="reconstruction.rounds.settings",
    Start="reconstruction.start",
)
