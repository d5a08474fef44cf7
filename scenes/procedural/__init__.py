# Procedural scenes: exact images and depth by ray casting, deterministic by seed.
from typing import TYPE_CHECKING

from runtime.lazy import exports

if TYPE_CHECKING:
    from scenes.procedural.scene import ProceduralScene, generate
    from scenes.procedural.writing import write

__all__ = ["ProceduralScene", "generate", "write"]

__getattr__ = exports(
    __path__,
    ProceduralScene="scenes.procedural.scene",
    generate="scenes.procedural.scene",
    write="scenes.procedural.writing",
)
