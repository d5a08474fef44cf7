# GS-VAR: VARSR's next-scale restoration with a reference view mixed in.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from models.gsvar.config import PRESETS, GSVARConfig, original_d16, original_d24, small, tiny
    from models.gsvar.model import GSVAR

__all__ = ["GSVAR", "PRESETS", "GSVARConfig", "original_d16", "original_d24", "small", "tiny"]

__getattr__ = exports(
    __path__,
    GSVAR="models.gsvar.model",
    PRESETS="models.gsvar.config",
    GSVARConfig="models.gsvar.config",
    original_d16="models.gsvar.config",
    original_d24="models.gsvar.config",
    small="models.gsvar.config",
    tiny="models.gsvar.config",
)
