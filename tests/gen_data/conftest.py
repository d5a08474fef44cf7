# Tiny procedural captures, and results made of them.
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from gen_data.curate import curate
from gen_data.recipe import Recipe
from gen_data.strategies import Strategy
from scenes import procedural

VIEWS, WIDTH, HEIGHT = 12, 48, 32


@pytest.fixture(scope="session")
def captures(tmp_path_factory) -> list[Path]:
    """Two tiny procedural captures; copy them before writing to them."""
    base = tmp_path_factory.mktemp("captures")
    sizes = {"n_views": VIEWS, "width": WIDTH, "height": HEIGHT, "points": 400}
    return [procedural.write(base / str(seed), seed, **sizes, progress=False) for seed in (0, 1)]


@pytest.fixture(scope="session")
def quick():
    """A recipe of a few steps: quick(strategy's name, **the recipe's other fields)."""

    def make(name: str = "sparse", train_every: int = 4, **fields) -> Recipe:
        own = {k: fields.pop(k) for k in ("start", "half") if k in fields}
        strategy = Strategy(name, train_every, seed=fields.get("seed", 0), **own)
        values = {"render_iter": (4,), "image_folder": "images", "init_num_pts": 300} | fields
        return Recipe(strategy, **values)

    return make


@pytest.fixture
def benchmark(captures, tmp_path) -> Path:
    """A layout as DL3DV-Benchmark's: two scenes and a broken one, the photos as `images_4`."""
    base = tmp_path / "DL3DV-10K-Benchmark"
    for name, capture in zip(("0a", "0b"), captures, strict=True):
        scene = base / name / "gaussian_splat"
        shutil.copytree(capture, scene)
        shutil.copytree(scene / "images", scene / "images_4")
        for file in (scene / "images").iterdir():
            Image.open(file).resize((WIDTH * 4, HEIGHT * 4)).save(file)
    (base / "0c" / "gaussian_splat").mkdir(parents=True)
    (base / "benchmark-meta.csv").write_text("batch,hash\n1K,0c\n1K,0b\n1K,0a\n")
    return base


@pytest.fixture(scope="session")
def results(captures, quick, tmp_path_factory) -> Path:
    """Two scenes, 0a and 0b, with several results each; copy them before writing to them."""
    base = tmp_path_factory.mktemp("results")
    for name, capture in zip(("0a", "0b"), captures, strict=True):
        curate(capture, base / name, quick("underfitting", render_iter=(2, 3)))
        curate(capture, base / name, quick("sparse", train_every=10, render_iter=(2, 3)))
        curate(capture, base / name, quick("sparse", train_every=5, depth=False))
        curate(capture, base / name, quick("cross"))
        folder = base / name / "gs_recon"  # as if it had run longer
        (folder / "train/ours_3").rename(folder / "train/ours_1000")
        done = json.loads((folder / "done.json").read_text())
        done["settings"]["render_iter"] = [2, 1000]
        (folder / "done.json").write_text(json.dumps(done))
    return base
