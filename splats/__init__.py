import scenes  # first, before torch loads: it sets how threads wait  # noqa: F401
from splats.files import load, save
from splats.gaussians import Splats, from_points, random_splats

__all__ = ["Splats", "from_points", "load", "random_splats", "save"]
