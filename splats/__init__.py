# Gaussians: parameters, rendering, files.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from splats.files import load, save
    from splats.gaussians import Splats, from_points, random_splats

__all__ = [
    "Splats",
    "from_points",
    "load",
    "random_splats",
    "save",
]

__getattr__ = exports(
    load="splats.files",
    save="splats.files",
    Splats="splats.gaussians",
    from_points="splats.gaussians",
    random_splats="splats.gaussians",
)
