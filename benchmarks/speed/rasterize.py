# Time of the rasterizer, forward and backward, by the number of Gaussians and of tile hits.
#   python -m benchmarks.speed.rasterize            as a table
#   python -m benchmarks.speed.rasterize --json F   the same cases as JSON
from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.timing import seconds
from runtime.command import run_command
from runtime.files import atomic_path
from runtime.flags import parse_command
from scenes.cameras import Cameras
from splats.gaussians import Splats
from splats.rasterize import rasterize

CASES = (
    (20_000, 256, 192),
    (10_000, 960, 540),
    (30_000, 960, 540),
    (100_000, 960, 540),
    (300_000, 960, 540),
    (500_000, 960, 540),
)


@dataclass(frozen=True)
class Options:
    """Print milliseconds per picture for six sizes: medians of several runs after a warm-up."""

    json: Path | None = None
    """Also write the cases to this file: gaussians, width, height, tile_hits, forward_ms,
    backward_ms."""
    repeats: int = 11
    """Runs of each case."""
    device: str = "cpu"
    """cpu times the CPU kernel, cuda gsplat."""


def random_splats_view(count: int, width: int, height: int, pixels: float, seed: int = 0):
    """Splats all over a picture, and its camera: about `pixels` wide (1 sigma), depths 2 to 6."""
    g = torch.Generator().manual_seed(seed)
    focal = 0.8 * width
    z = 2 + 4 * torch.rand(count, generator=g)
    u, v = torch.rand(2, count, generator=g)
    means = torch.stack([(u - 0.5) * width / focal * z, (v - 0.5) * height / focal * z, z], 1)
    sizes = pixels * torch.exp(0.5 * torch.randn(count, 3, generator=g))
    splats = Splats(
        means=means,
        scales=(sizes * z[:, None] / focal).log(),
        quats=torch.randn(count, 4, generator=g),
        opacities=torch.randn(count, generator=g),
        sh0=0.5 * torch.randn(count, 1, 3, generator=g),
        shN=0.1 * torch.randn(count, 15, 3, generator=g),
    )
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return splats, Cameras(torch.eye(4)[None], K[None], torch.tensor([[width, height]]))


def tile_hits(splats: Splats, cameras: Cameras) -> int:
    """The number of (tile, Gaussian) pairs that the CPU kernel blends for this picture."""
    from splats.cpu.tiles import bin_tiles, sort_by_depth

    with torch.no_grad():
        info = rasterize(splats.cpu(), cameras).info
    arrays = [info[k][0].numpy() for k in ("means2d", "conics", "opacities", "extents")]
    order = sort_by_depth(info["depths"][0].numpy(), info["radii"][0].numpy())
    return len(bin_tiles(order, *arrays, *cameras.size)[1])


def median_ms(run: Callable[[], float], repeats: int) -> float:
    """The median of what `run` returns in seconds, in milliseconds, after one warm-up."""
    run()
    return 1000 * statistics.median(run() for _ in range(repeats))


def measure(count: int, width: int, height: int, options: Options) -> dict[str, float]:
    """Tile hits and milliseconds, forward and backward, of one picture."""
    splats, cameras = random_splats_view(count, width, height, 2.1)
    hits = tile_hits(splats, cameras)
    splats = splats.to(options.device)

    def forward() -> float:
        with torch.no_grad():
            return seconds(lambda: rasterize(splats, cameras), options.device)

    def backward() -> float:
        splats.zero_grad()
        render = rasterize(splats, cameras)
        loss = render.colors.mean() + render.depths.mean()
        return seconds(loss.backward, options.device)

    return {
        "gaussians": count,
        "width": width,
        "height": height,
        "tile_hits": hits,
        "forward_ms": round(median_ms(forward, options.repeats), 2),
        "backward_ms": round(median_ms(backward, options.repeats), 2),
    }


def main() -> None:
    """Print a line for each size and write --json."""
    options = parse_command(Options, "python -m benchmarks.speed.rasterize")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.device}")
    print("gaussians    size     hits  hits/gaussian  forward ms  backward ms  both: us/1000 hits")
    cases = []
    for count, width, height in CASES:
        case = measure(count, width, height, options)
        cases.append(case)
        both = case["forward_ms"] + case["backward_ms"]
        print(
            f"{count:9d}  {width}x{height} {case['tile_hits']:8d} "
            f"{case['tile_hits'] / count:14.2f} {case['forward_ms']:11.1f} "
            f"{case['backward_ms']:12.1f} {1e6 * both / case['tile_hits']:19.0f}",
            flush=True,
        )
    if options.json:
        with atomic_path(options.json) as temporary:
            temporary.write_text(json.dumps(cases, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
