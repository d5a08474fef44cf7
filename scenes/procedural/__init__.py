# Procedural places: exact pictures and depth by ray casting, deterministic by seed.
from scenes.procedural.scene import ProceduralScene, generate
from scenes.procedural.writing import write

__all__ = ["ProceduralScene", "generate", "write"]
