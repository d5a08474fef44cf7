# Captures on disk -> Scene.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from scenes.cameras import Cameras
    from scenes.loading import load
    from scenes.scene import Scene, Split

__all__ = [
    "Cameras",
    "Scene",
    "Split",
    "load",
]

__getattr__ = exports(
    __path__,
    Cameras="scenes.cameras",
    load="scenes.loading",
    Scene="scenes.scene",
    Split="scenes.scene",
)
