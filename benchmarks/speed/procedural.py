# Frames per second of the procedural scenes: python -m benchmarks.speed.procedural [--json F]
from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import use_threads
from runtime.command import run_command
from runtime.files import atomic_path
from runtime.flags import parse_command
from scenes.procedural import generate


@dataclass(frozen=True)
class Arguments:
    """Time generating and rendering places; times are medians over seeds."""

    seeds: int = 4
    views: int = 24
    width: int = 256
    height: int = 192
    threads: int = 2
    json: Path | None = None
    """Also write the figures to this file."""


def main() -> None:
    """Print a line for each kind of place and write --json."""
    a = parse_command(Arguments, "python -m benchmarks.speed.procedural")
    use_threads(a.threads)
    generate(0, "room")  # compiles the kernels, or loads them
    rows = []
    for kind in ("room", "tabletop", "courtyard"):
        spent = frames = cpu = 0.0
        generating = []
        for seed in range(a.seeds):
            start = time.perf_counter()
            scene = generate(seed, kind)
            generating.append(time.perf_counter() - start)
            cameras = scene.capture(a.views, a.width, a.height)
            start, start_cpu = time.perf_counter(), time.process_time()
            scene.render(cameras)
            spent += time.perf_counter() - start
            cpu += time.process_time() - start_cpu
            frames += a.views
        row = {
            "kind": kind,
            "frames_per_second": round(frames / spent, 1),
            "cpu_seconds_per_frame": round(cpu / frames, 4),
            "seconds_to_make": round(sorted(generating)[len(generating) // 2], 2),
            "size": [a.width, a.height],
            "threads": a.threads,
        }
        rows.append(row)
        print(
            f"{kind:10s} {row['frames_per_second']:6.1f} frames/s of {a.width}x{a.height} on "
            f"{a.threads} threads ({row['cpu_seconds_per_frame']:.3f} CPU s a frame), "
            f"made in {row['seconds_to_make']:.1f} s"
        )
    if a.json:
        with atomic_path(a.json) as path:
            path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    run_command(main)
