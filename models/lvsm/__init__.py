# LVSM, decoder-only: the baseline of Efficient-LVSM.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from models.lvsm.config import PRESETS, LVSMConfig
    from models.lvsm.model import LVSM

__all__ = ["LVSM", "PRESETS", "LVSMConfig"]

__getattr__ = exports(
    __path__,
    LVSM="models.lvsm.model",
    PRESETS="models.lvsm.config",
    LVSMConfig="models.lvsm.config",
)
