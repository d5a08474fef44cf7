# Captures on disk -> Scene.
from scenes.cameras import Cameras
from scenes.loading import load
from scenes.scene import Scene, Split

__all__ = ["Cameras", "Scene", "Split", "load"]
