# What a view costs: Efficient-LVSM with its cache, without it, and LVSM, over the number of photos.
#   python -m benchmarks.speed.efficient_lvsm
from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from benchmarks.timing import SIDE, Work, best, product, seconds, use_threads, warn_if_busy
from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig
from models.efficient_lvsm.model import COLORS, join
from models.layers.rays import CHANNELS
from models.layers.slot_cache import SlotCache
from models.lvsm import LVSM, LVSMConfig
from runtime.command import choose_device, run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from runtime.precision import multiplies_bf16, parse_dtype


@dataclass(frozen=True)
class Options:
    """Add one photo to N - 1 that are there, and render all targets: with the cache, by computing
    all photos again, and by LVSM, which has as many blocks as encoder and decoder together.

    Weights are random. The operations' ratio is what the arithmetic promises; the floor is the
    arithmetic at the speed of a large matrix product on the same machine."""

    counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Numbers of photos N."""
    targets: int = 8
    """Views to render."""
    size: int = 128
    """Side of the square pictures."""
    width: int = 256
    """Channels of both networks."""
    depth: int = 6
    """Layers of Efficient-LVSM's encoder and of its decoder."""
    repeats: int = 5
    """Timed calls of each, after one that is not; the fastest counts."""
    most_seconds: float = 20.0
    """A network whose call takes longer is timed once, and for larger N no more."""
    dtype: Literal["float32", "bf16"] = "float32"
    """Precision of all of them."""
    threads: int = 1
    """Threads of a CPU."""
    device: str | None = None
    """Default: cuda if available, else cpu."""
    results: Path = Path("results/efficient_lvsm")
    """Folder of table.json and table.md."""


def check(options: Options) -> None:
    """ValueError for what cannot be measured."""
    for flag in ("targets", "width", "depth", "repeats", "threads"):
        if getattr(options, flag) < 1:
            raise ValueError(f"--{flag} {getattr(options, flag)}: give at least 1")
    if not options.counts or min(options.counts) < 1:
        raise ValueError(f"--counts {' '.join(map(str, options.counts))}: give at least 1 photo")
    if options.size < 1 or options.size % EfficientLVSMConfig.patch:
        raise ValueError(f"--size {options.size}: give a multiple of {EfficientLVSMConfig.patch}")
    device = choose_device(options.device)
    if options.dtype == "bf16" and not multiplies_bf16(device):
        raise ValueError("--dtype bf16 would be emulated here: use float32")


def count_tokens(options: Options) -> int:
    """Tokens of a view."""
    return (options.size // EfficientLVSMConfig.patch) ** 2


def count_ends(options: Options, photos: int) -> float:
    """Operations of tokens of photos and targets, and of the targets' colours."""
    rays, values = CHANNELS["default"], 2 * EfficientLVSMConfig.patch**2 * options.width
    channels = photos * (COLORS + rays) + options.targets * (rays + COLORS)
    return count_tokens(options) * values * channels


def count_efficient(options: Options, photos: int, new: int) -> float:
    """Operations (2 a multiplication with addition) of encoding `new` of the photos, and of
    rendering all targets from all of them."""
    P, d, L, M = count_tokens(options), options.width, options.depth, options.targets
    encode = new * (28 * P * d**2 + 4 * P**2 * d)
    decode = M * (28 * P * d**2 + 4 * P**2 * d + 4 * P * photos * P * d)
    return L * (encode + decode) + count_ends(options, new)


def count_lvsm(options: Options, photos: int) -> float:
    """Operations of LVSM for all targets."""
    tokens, d = (photos + 1) * count_tokens(options), options.width
    blocks = 2 * options.depth * (24 * tokens * d**2 + 4 * tokens**2 * d)
    return options.targets * blocks + count_ends(options, photos)


def measure(call: Work, options: Options, device: torch.device) -> float:
    """Seconds of a call: the fastest of several, or the only one if it takes long."""
    first = seconds(call, device)
    return first if first > options.most_seconds else best(call, options.repeats, device)


@torch.inference_mode()
def run(options: Options) -> list[dict]:
    """A row for each number of photos."""
    device, dtype = choose_device(options.device), parse_dtype(options.dtype)
    torch.manual_seed(0)
    sizes = {"width": options.width, "head_dim": 64}
    ours = EfficientLVSM(EfficientLVSMConfig(depth=options.depth, **sizes)).to(device, dtype).eval()
    lvsm = LVSM(LVSMConfig(depth=2 * options.depth, **sizes)).to(device, dtype).eval()
    unit = measure(product(device, dtype), options, device)
    peak, most = 2 * SIDE**3 / unit, max(options.counts)

    def noise(views: int, channels: int) -> Tensor:
        shape = 1, views, channels, options.size, options.size
        return torch.randn(shape, device=device, dtype=dtype)

    photos, rays = noise(most, COLORS), noise(most, CHANNELS["default"])
    targets = noise(options.targets, CHANNELS["default"])
    capacity = most * count_tokens(options)
    caches = [
        SlotCache.empty(1, ours.config.heads, capacity, 64, device, dtype)
        for _ in range(options.depth)
    ]

    def add(i: int) -> None:
        contexts = join(ours.encode(photos[:, i : i + 1], rays[:, i : i + 1]))
        for cache, context in zip(caches, contexts, strict=True):
            cache.add(i, *context)

    rows, slow = [], False
    for count in sorted(options.counts):
        while len(caches[0].slots) < count - 1:
            add(len(caches[0].slots))

        def incremental(last: int = count - 1) -> None:
            for cache in caches:
                if last in cache.slots:
                    cache.remove(last)
            add(last)
            ours.decode(targets, [cache.read() for cache in caches])

        def adding(last: int = count - 1) -> None:
            for cache in caches:
                cache.remove(last)
            add(last)

        cached = measure(incremental, options, device)
        added = measure(adding, options, device)
        given = photos[:, :count], rays[:, :count], targets
        again = measure(lambda given=given: ours(*given), options, device)
        other = None if slow else measure(lambda given=given: lvsm(*given), options, device)
        slow = slow or other > options.most_seconds
        operations = count_efficient(options, count, 1)
        ratio = count_lvsm(options, count) / operations
        rows.append(
            {
                "photos": count,
                "cached_ms": 1e3 * cached,
                "adding_ms": 1e3 * added,
                "floor_ms": 1e3 * operations / peak,
                "recomputed_ms": 1e3 * again,
                "recomputed_ratio": again / cached,
                "recomputed_operations_ratio": count_efficient(options, count, count) / operations,
                "lvsm_ms": None if other is None else 1e3 * other,
                "lvsm_ratio": None if other is None else other / cached,
                "lvsm_operations_ratio": ratio,
            }
        )
        sys.stderr.write(f"{count} photos: {1e3 * cached:.0f} ms\n")
    return rows


def format_table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    head = (
        "| photos | cached (ms) | floor (ms) | adding (ms) | computed again (ms) | ratio "
        "| of the operations' | LVSM (ms) | ratio | of the operations' |\n|" + "---|" * 10
    )
    lines = [head]
    for r in rows:
        again = f"{r['recomputed_ratio']:.1f} | {r['recomputed_operations_ratio']:.1f}"
        cells = f"{r['photos']} | {r['cached_ms']:.0f} | {r['floor_ms']:.0f} | {r['adding_ms']:.1f}"
        other = f"not timed | | {r['lvsm_operations_ratio']:.1f}"
        if r["lvsm_ms"] is not None:
            other = f"{r['lvsm_ms']:.0f} | {r['lvsm_ratio']:.1f} | {r['lvsm_operations_ratio']:.1f}"
        lines.append(f"| {cells} | {r['recomputed_ms']:.0f} | {again} | {other} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write the table."""
    options = parse_command(Options, "python -m benchmarks.speed.efficient_lvsm")
    check(options)
    warn_if_busy(options.threads)
    use_threads(options.threads)
    rows = run(options)
    table = format_table(rows)
    sys.stdout.write(table)
    options.results.mkdir(parents=True, exist_ok=True)
    with atomic_path(options.results / "table.md") as path:
        path.write_text(table)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    write_json(options.results / "table.json", {"settings": settings, "rows": rows})


if __name__ == "__main__":
    run_command(main)
