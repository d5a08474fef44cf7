# GS-VAR: VARSR's next-scale restoration with a reference view mixed in.
from models.gsvar.config import PRESETS, GSVARConfig, original_d16, original_d24, small, tiny
from models.gsvar.model import GSVAR

__all__ = ["GSVAR", "PRESETS", "GSVARConfig", "original_d16", "original_d24", "small", "tiny"]
