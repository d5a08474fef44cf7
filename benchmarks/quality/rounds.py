# Overhead of fix-and-distil over optimising, rendering and fixing, and whether memory stays flat
# over many rounds.
#   python -m benchmarks.quality.rounds --rounds 20
from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import fixers
import reconstruction
import scenes
from benchmarks.quality.captures import make_config
from generators import RenderThenFix
from reconstruction import EvaluationConfig, FixConfig
from reconstruction.result import ResultFolder
from runtime.command import run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from scenes.procedural import write

OWN = ("optimising", "trial", "rendering", "fixing")  # everything else is the loop's overhead


@dataclass(frozen=True)
class Options:
    """Measure time and memory of the rounds of one run."""

    capture: tyro.conf.Positional[Path | None] = None
    """A capture (default: a procedural one of 24 views of 256x192)."""
    results: Path = Path("results/rounds")
    """The run, and rounds.json."""
    rounds: int = 20
    steps: int = 1000
    data_factor: int = 1
    cap: int = 10_000
    """Most Gaussians."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    """Run the rounds and print seconds by part, the overhead and the peak memory."""
    options = parse_command(Options, "python -m benchmarks.quality.rounds")
    capture = options.capture or options.results / "scene"
    if options.capture is None and not capture.exists():
        write(capture, 0, n_views=24, width=256, height=192)
    config = make_config(options.steps, options.cap)
    fixer = fixers.load("gsvar", mode="auto", device=options.device)
    folder = ResultFolder(options.results / "run")
    scene = scenes.load(capture, data_factor=options.data_factor)
    began = time.perf_counter()
    reconstruction.optimise(
        scene,
        config,
        result_dir=folder.path,
        device=options.device,
        resume=False,
        evaluation=EvaluationConfig(save_video=False),
        generator=RenderThenFix(fixer),
        fixing=FixConfig(rounds=options.rounds, first_round=0.2, gate="off"),
    )
    whole = time.perf_counter() - began
    last = options.steps - 1
    rounds = json.loads(folder.rounds_stats(last).read_text())
    spent = {"optimising": json.loads(folder.train_stats(last).read_text())["ellipse_time"]}
    for r in rounds:
        for part, seconds in r["seconds"].items():
            spent[part] = spent.get(part, 0.0) + seconds
    spent["optimising"] -= spent.get("trial", 0.0)
    beside = ("optimising", "trial", "judging")
    in_rounds, judging = spent.pop("round"), spent.get("judging", 0.0)
    spent["rest of the rounds"] = in_rounds - sum(v for k, v in spent.items() if k not in beside)
    overhead = in_rounds + judging - spent["rendering"] - spent["fixing"]
    own = sum(spent.get(part, 0.0) for part in OWN)
    memory = [r["memory"] for r in rounds if r["memory"] is not None]
    lines = ["| part | seconds |", "|---|---|"]
    lines += [f"| {part} | {seconds:.1f} |" for part, seconds in spent.items()]
    lines += [
        f"| whole command, with evaluation and report | {whole:.1f} |",
        "",
        f"{len(rounds)} rounds of {rounds[0]['views'] + rounds[0]['refused']} views: the loop "
        f"takes {100 * overhead / own:.1f} % of what optimising (trials too), rendering and fixing "
        "take.",
        "Peak memory after each round (GB): " + " ".join(f"{m:.3f}" for m in memory),
    ]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    write_json(
        options.results / "rounds.json",
        {"seconds": spent, "whole": whole, "overhead": overhead / own, "memory": memory},
    )
    with atomic_path(options.results / "rounds.md") as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    run_command(main)
