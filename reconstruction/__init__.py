# Scene -> splats: optimisation, fix and distil, evaluation.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from reconstruction.config import Config, EvaluationConfig, default, mcmc
    from reconstruction.rounds.settings import FixConfig, original
    from reconstruction.run import evaluate_only, optimise
    from reconstruction.start import Start

__all__ = [
    "Config",
    "EvaluationConfig",
    "FixConfig",
    "Start",
    "default",
    "evaluate_only",
    "mcmc",
    "optimise",
    "original",
]

__getattr__ = exports(
    __path__,
    Config="reconstruction.config",
    default="reconstruction.config",
    mcmc="reconstruction.config",
    EvaluationConfig="reconstruction.config",
    evaluate_only="reconstruction.run",
    optimise="reconstruction.run",
    FixConfig="reconstruction.rounds.settings",
    original="reconstruction.rounds.settings",
    Start="reconstruction.start",
)
