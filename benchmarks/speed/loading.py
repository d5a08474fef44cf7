# How long a capture takes to load, beside Pillow decoding the same photos as small in two threads.
#   python -m benchmarks.speed.loading                --photos 300: the size of a real capture
from __future__ import annotations

import logging
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import scenes
from benchmarks.timing import seconds, use_threads, warn_if_busy
from runtime.command import run_command
from runtime.flags import parse_command
from scenes.cameras import Cameras
from scenes.formats import colmap

DISTINCT = 4  # photos that differ; the others are copies
LIMIT = 1.2  # times Pillow alone
SEED = 0


@dataclass(frozen=True)
class Options:
    """Load a synthetic COLMAP capture of JPEG photos at --factor of their size.

    Loading and Pillow alone (`draft`, then `reduce`) take turns on the same files; the best run of
    each counts. "again" is the next start, from the cache of small photos. CPU seconds are those of
    all threads, which other processes hardly change.
    """

    photos: int = 24
    width: int = 4000
    height: int = 3000
    factor: int = 4
    threads: int = 2
    """Threads of Pillow alone; loading has as many as there are cores."""
    repeats: int = 3


def write_capture(folder: Path, options: Options) -> None:
    """Photos with detail at all scales, as noisy as a camera's, and a COLMAP model of them."""
    rng, size = np.random.default_rng(SEED), (options.width, options.height)
    names = [f"{i:04d}.jpg" for i in range(options.photos)]
    (folder / "images").mkdir(parents=True)
    for i, name in enumerate(names):
        file = folder / "images" / name
        if i >= DISTINCT:
            shutil.copyfile(folder / "images" / names[i % DISTINCT], file)
            continue
        picture = rng.normal(128, 3, (options.height, options.width, 3)).astype(np.float32)
        for cells, contrast in ((6, 60), (24, 40), (96, 25), (384, 15), (1500, 10)):
            coarse = rng.normal(0, contrast, (cells * 3 // 4, cells, 3)).astype(np.float32)
            picture += cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, quality=92)
    viewmats = torch.eye(4).repeat(len(names), 1, 1)
    viewmats[:, 0, 3] = torch.arange(len(names))
    focal = float(options.width)
    K = torch.tensor([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
    cameras = Cameras(viewmats, K.repeat(len(names), 1, 1), torch.tensor([size] * len(names)))
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(SEED))
    colmap.write(folder, cameras, names, points, points.sigmoid())


def decode_with_pillow(folder: Path, factor: int, threads: int) -> list[np.ndarray]:
    """All photos of a folder at 1/factor, by Pillow alone."""

    def decode(file: Path) -> np.ndarray:
        with Image.open(file) as image:
            size = (image.width // factor, image.height // factor)
            image.draft("RGB", size)
            if image.width % size[0]:
                return np.array(image.resize(size, Image.Resampling.BOX))
            return np.array(image.reduce(image.width // size[0]))

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(decode, sorted(folder.iterdir())))


def measure(folder: Path, options: Options) -> dict[str, tuple[float, float]]:
    """The least seconds, and CPU seconds, of Pillow alone, of loading, and of loading again."""
    least = dict.fromkeys(("Pillow alone", "loading", "loading again"), (float("inf"),) * 2)

    def load() -> scenes.Scene:
        return scenes.load(folder, data_factor=options.factor, progress=False)

    for _ in range(options.repeats):
        shutil.rmtree(folder / f"images_{options.factor}_cache", ignore_errors=True)
        works = {
            "Pillow alone": lambda: decode_with_pillow(
                folder / "images", options.factor, options.threads
            ),
            "loading": load,
            "loading again": load,
        }
        for name, work in works.items():
            before = time.process_time()
            spent = seconds(work), time.process_time() - before
            least[name] = tuple(map(min, least[name], spent))
    return least


def main() -> None:
    """Print a table of seconds, and their ratio to Pillow alone."""
    options = parse_command(Options, "python -m benchmarks.speed.loading")
    for name in ("width", "height", "factor", "threads", "repeats"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} {getattr(options, name)}: give at least 1")
    if options.photos < 3:
        raise ValueError(f"--photos {options.photos}: give at least 3")
    use_threads(options.threads)
    warn_if_busy(options.threads)
    logging.getLogger("scenes").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        capture = Path(folder) / "capture"
        write_capture(capture, options)
        least = measure(capture, options)
    print(
        f"{options.photos} photos of {options.width}x{options.height} at 1/{options.factor}\n\n"
        "| | s | CPU s | ms a photo | of Pillow alone | its CPU s | |\n" + "|---" * 7 + "|"
    )
    for name, (spent, cpu) in least.items():
        ratio, cpu_ratio = (a / b for a, b in zip((spent, cpu), least["Pillow alone"], strict=True))
        verdict = f"above {LIMIT}" if ratio > LIMIT else ""
        print(
            f"| {name} | {spent:.2f} | {cpu:.2f} | {1000 * spent / options.photos:.1f} "
            f"| {ratio:.2f} | {cpu_ratio:.2f} | {verdict} |"
        )


if __name__ == "__main__":
    run_command(main)
