# ArchonView (arXiv 2503.13588): new views of an object from one picture, scale by scale.
from models.archonview.config import PRESETS, ArchonViewConfig
from models.archonview.model import ArchonView

__all__ = ["PRESETS", "ArchonView", "ArchonViewConfig"]
