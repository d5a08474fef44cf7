from pathlib import Path

import pytest

from gen_data.curate import Recipe
from gen_data.strategies import Strategy
from scenes import procedural

VIEWS, WIDTH, HEIGHT = 12, 48, 32


@pytest.fixture(scope="session")
def captures(tmp_path_factory) -> list[Path]:
    """Two tiny procedural captures; copy them before writing to them."""
    base = tmp_path_factory.mktemp("captures")
    sizes = {"n_views": VIEWS, "width": WIDTH, "height": HEIGHT, "points": 400}
    return [procedural.write(base / str(seed), seed, **sizes, progress=False) for seed in (0, 1)]


@pytest.fixture
def quick():
    """A recipe of a few steps: quick(strategy's name, **the recipe's other fields)."""

    def make(name: str = "sparse", train_every: int = 4, **fields) -> Recipe:
        own = {k: fields.pop(k) for k in ("start", "half") if k in fields}
        strategy = Strategy(name, train_every, seed=fields.get("seed", 0), **own)
        values = {"render_iter": (4,), "image_folder": "images", "init_num_pts": 300} | fields
        return Recipe(strategy, **values)

    return make
