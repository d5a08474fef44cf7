# Efficient-LVSM: new views from posed photos, each photo encoded once.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from models.efficient_lvsm.config import PRESETS, EfficientLVSMConfig, mini, original, tiny
    from models.efficient_lvsm.model import EfficientLVSM

__all__ = ["PRESETS", "EfficientLVSM", "EfficientLVSMConfig", "mini", "original", "tiny"]

__getattr__ = exports(
    __path__,
    EfficientLVSM="models.efficient_lvsm.model",
    PRESETS="models.efficient_lvsm.config",
    EfficientLVSMConfig="models.efficient_lvsm.config",
    mini="models.efficient_lvsm.config",
    original="models.efficient_lvsm.config",
    tiny="models.efficient_lvsm.config",
)
