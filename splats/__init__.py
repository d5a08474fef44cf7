# Gaussians: tensors and trainable parameters, rendering (splats.rasterize), files, viewer.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from splats.files import load, save
    from splats.gaussians import Gaussians, Splats, from_points, random_splats

__all__ = [
    "Gaussians",
    "Splats",
    "from_points",
    "load",
    "random_splats",
    "save",
]

__getattr__ = exports(
    __path__,
    load="splats.files",
    save="splats.files",
    Gaussians="splats.gaussians",
    Splats="splats.gaussians",
    from_points="splats.gaussians",
    random_splats="splats.gaussians",
)
