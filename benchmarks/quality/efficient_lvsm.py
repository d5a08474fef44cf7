# What Efficient-LVSM's views are worth: beside the nearest input, that warped, and splats.
#   python -m benchmarks.quality.efficient_lvsm ../shared/scenes/fox --procedural 20
from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

import reconstruction
import scenes
from benchmarks.quality.captures import make_config
from evaluation.metrics import METRICS, Metrics, average
from evaluation.pictures import join_side_by_side, save_png
from generators.efficient_lvsm import load_model
from generators.session import Session
from models.layers.rays import pixel_rays
from runtime.command import run_command
from runtime.files import write_bytes, write_json
from runtime.flags import parse_command
from runtime.progress import ProgressBar
from scenes import procedural
from scenes.cameras import Cameras
from scenes.nearest import measure_pose_distances
from scenes.scene import Scene
from splats.rasterize import rasterize
from training.efficient_lvsm.samples import PosedPhotos

log = logging.getLogger(__name__)

SEED = 200_000  # of the first held-out scene; training took others
VIEWS, EVERY = 96, 8  # photos of a procedural walk, of which every 8th may be an input
PROBE = 200  # steps that tell how many fit into the time


@dataclass(frozen=True)
class Options:
    """Draw held-out photos from the nearest 2, 4, ... others, as squares of the network's size:
    Efficient-LVSM, the nearest input as it is, the same warped to the view as a plane at its mean
    depth, and splats optimised from the same inputs.

    Procedural scenes are generated from seeds that no training has; every 8th photo of theirs may
    be an input, and those in the middle between are asked for. Of captures the held-out photos are
    (every 8th)."""

    captures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Real captures."""
    procedural: int = 20
    """Number of procedural scenes."""
    checkpoint: Path | None = None
    """Weights (default: the included ones)."""
    inputs: tuple[int, ...] = (2, 4, 6)
    """Numbers of inputs."""
    targets: int = 3
    """Photos of a scene to draw, evenly chosen."""
    splats_seconds: float = 60.0
    """Time to optimise splats, for each target; 0: none."""
    splats_inputs: tuple[int, ...] = (2,)
    """Numbers of inputs that splats are made from."""
    splats_scenes: int = 6
    """Procedural scenes that splats are made of, for one target each, and of each capture."""
    backbones: Path | None = None
    """Folder with the weights of LPIPS's networks, as for the trainer."""
    results: Path = Path("results/efficient_lvsm_quality")
    """Folder of table.md, table.json, pictures and the generated scenes."""


@dataclass(frozen=True)
class Case:
    """A photo that is drawn from others: their indices, nearest first."""

    group: str
    scene: Scene
    target: int
    others: tuple[int, ...]


def load_cases(options: Options, size: int, patch: int) -> Iterator[list[Case]]:
    """The cases of each scene."""
    for k in range(options.procedural):
        folder = options.results / "scenes" / f"{SEED + k}"
        if not folder.exists():
            sizes = {"n_views": VIEWS, "width": 128, "height": 128, "points": 2000}
            procedural.write(folder, SEED + k, progress=False, **sizes)
        scene = make_square(scenes.load(folder, progress=False), size, patch)
        given = range(0, VIEWS, EVERY)
        asked = range(EVERY // 2, VIEWS, EVERY)
        yield choose_cases("procedural", scene, given, asked, options)
    for path in options.captures:
        scene = scenes.load(
            path, data_factor=0, longest_side=500, split="gsplat", test_every=EVERY, progress=False
        )
        square, split = make_square(scene, size, patch), scene.split
        yield choose_cases(path.name, square, split.train, split.test, options)


def choose_cases(group: str, scene: Scene, given, asked, options: Options) -> list[Case]:
    """Some of the photos asked for, each with the nearest that are given."""
    given, asked = list(given), list(asked)
    places = np.linspace(0, len(asked) - 1, min(options.targets, len(asked))).round().astype(int)
    cases = []
    for target in (asked[i] for i in places):
        distances = measure_pose_distances(scene.cameras[[target]], scene.cameras[given])[0]
        nearest = [given[i] for i in distances.argsort().tolist()]
        cases.append(Case(group, scene, target, tuple(nearest[: max(options.inputs)])))
    return cases


def make_square(scene: Scene, size: int, patch: int) -> Scene:
    """The scene with its photos as the network sees them."""
    photos = PosedPhotos.from_scene(scene, range(len(scene)), size, patch)
    images = tuple(photo.permute(1, 2, 0).contiguous().numpy() for photo in photos.photos)
    sizes = torch.tensor([[size, size]]).expand(len(scene), 2)
    cameras = Cameras(scene.cameras.viewmats, photos.Ks, sizes)
    return replace(scene, cameras=cameras, images=images, alphas=None, masks=None)


def warp_plane(scene: Scene, source: int, target: int) -> Tensor:
    """The source's photo [H,W,3] seen from the target, as if all were on a plane at the mean depth
    of the points that the source sees."""
    camera, other = scene.cameras[[target]], scene.cameras[[source]]
    depth = measure_depth(scene, source)
    width, height = camera.size
    origins, directions = pixel_rays(camera.camtoworlds, camera.Ks, (width, height))
    forward = camera.camtoworlds[0, :3, 2]
    away = (directions[0] * forward[:, None, None]).sum(0)  # cosine to the optical axis
    points = (origins[0][:, None, None] + directions[0] * depth / away).flatten(1).T
    seen = points @ other.viewmats[0, :3, :3].T + other.viewmats[0, :3, 3]
    pixels = seen @ other.Ks[0].T
    places = pixels[:, :2] / pixels[:, 2:].clamp_min(1e-6)
    grid = (2 * places / torch.tensor([width, height]) - 1).view(1, height, width, 2)
    image = scene.image(source).permute(2, 0, 1)[None]
    warped = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    return warped[0].permute(1, 2, 0)


def measure_depth(scene: Scene, view: int) -> float:
    """Mean depth of the points inside a view; of all in front of it if none is inside."""
    camera = scene.cameras[[view]]
    seen = scene.points @ camera.viewmats[0, :3, :3].T + camera.viewmats[0, :3, 3]
    depths, pixels = seen[:, 2], seen @ camera.Ks[0].T
    places = pixels[:, :2] / pixels[:, 2:].clamp_min(1e-6)
    inside = (depths > 0) & (places >= 0).all(1) & (places < torch.tensor(camera.size)).all(1)
    some = depths[inside] if inside.any() else depths[depths > 0]
    return some.mean().item() if len(some) else 1.0


def optimise_splats(case: Case, count: int, seconds: float) -> Tensor:
    """The target drawn by splats that were optimised for so long from the inputs."""
    train = case.others[:count]
    split = replace(case.scene.split, train=train, test=(case.target,))
    scene, steps = replace(case.scene, split=split), PROBE
    for _ in range(2):  # a probe, whose pace tells the steps that fit
        start = time.perf_counter()
        splats = reconstruction.optimise(scene, make_config(steps, 20_000))
        steps = max(PROBE, int(steps * seconds / (time.perf_counter() - start)))
    with torch.no_grad():
        return rasterize(splats, scene.cameras[[case.target]]).colors[0].clamp(0, 1)


def draw(model, case: Case, count: int) -> Tensor:
    """The target drawn by Efficient-LVSM."""
    session, views = Session(model, capacity=count), list(case.others[:count])
    session.set_frame(case.scene.cameras[[*views, case.target]])
    session.add_views([case.scene.image(i) for i in views], case.scene.cameras[views])
    return session.render(case.scene.cameras[[case.target]])[0].clamp(0, 1)


def run(options: Options) -> list[dict]:
    """A row for each group of scenes, number of inputs and way."""
    model = load_model(options.checkpoint, device="cpu")
    config, metrics = model.config, Metrics("both", "cpu", options.backbones)
    scores: dict[tuple[str, int, str], list[dict]] = {}
    total = options.procedural + len(options.captures)
    cases = load_cases(options, config.image_size, config.patch)
    for number, group in enumerate(ProgressBar(cases, "scenes", total=total, unit="scene")):
        for k, case in enumerate(group):
            truth = case.scene.image(case.target)
            strip = [truth]
            for count in (n for n in options.inputs if n <= len(case.others)):
                ways = {"Efficient-LVSM": draw(model, case, count)}
                strip.append(ways["Efficient-LVSM"])
                ways["nearest input"] = case.scene.image(case.others[0])
                ways["nearest, warped"] = warp_plane(case.scene, case.others[0], case.target)
                real = case.group != "procedural"
                splats = k == 0 and (real or number < options.splats_scenes)
                if splats and options.splats_seconds and count in options.splats_inputs:
                    ways["splats"] = optimise_splats(case, count, options.splats_seconds)
                    ways["Efficient-LVSM, where splats are"] = ways["Efficient-LVSM"]
                for way, image in ways.items():
                    row = metrics(image.float(), truth)
                    scores.setdefault((case.group, count, way), []).append(row)
            pictures = [*strip, ways["nearest input"], ways["nearest, warped"]]
            name = f"{case.group}_{number:03d}_{case.target:05d}.png"
            save_png(options.results / "pictures" / name, join_side_by_side(pictures, gap=2))
    rows = []
    for (group, count, way), values in scores.items():
        median = statistics.median(value["psnr"] for value in values)
        row = {"scenes": group, "inputs": count, "way": way, "views": len(values)}
        rows.append(row | average(values) | {"psnr_median": median})
    return sorted(rows, key=lambda r: (r["scenes"] != "procedural", r["scenes"], r["inputs"]))


def format_table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    names = [name for name in METRICS if rows[0].get(name) is not None]
    titles = " | ".join(METRICS[name].label for name in names)
    lines = [f"| scenes | inputs | way | views | {titles} |", "|" + "---|" * (4 + len(names))]
    for row in rows:
        numbers = " | ".join(f"{row[name]:.{METRICS[name].digits}f}" for name in names)
        about = f"{row['scenes']} | {row['inputs']} | {row['way']} | {row['views']}"
        lines.append(f"| {about} | {numbers} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write the table."""
    options = parse_command(Options, "python -m benchmarks.quality.efficient_lvsm")
    for flag in ("inputs", "splats_inputs"):
        if any(number < 2 for number in getattr(options, flag)):
            raise ValueError(f"--{flag}: one input alone tells no scale; give at least 2")
    if options.targets < 1 or options.procedural + len(options.captures) < 1:
        raise ValueError("give --targets of at least 1, and captures or --procedural")
    rows = run(options)
    table = format_table(rows)
    log.info("%s", table)
    write_bytes(options.results / "table.md", table.encode())
    settings = {k: str(v) for k, v in asdict(options).items()}
    write_json(options.results / "table.json", {"settings": settings, "rows": rows})


if __name__ == "__main__":
    run_command(main)
