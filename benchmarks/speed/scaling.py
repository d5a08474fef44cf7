# Throughput of two processes beside that of one: training, curation, reconstruction, evaluation.
#   python -m benchmarks.speed.scaling
#   python -m benchmarks.speed.scaling --only training --steps 4
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from benchmarks.timing import warn_if_busy
from models.gsvar import GSVAR, loading
from models.gsvar.config import PRESETS
from runtime.command import run_command
from runtime.files import atomic_path, write_json
from runtime.flags import parse_command
from triplets import manifest

ROOT = Path(__file__).parents[2]
TABLES = 2  # the first of four seeds in a row that draw the same kind of place
Command = list[object]


@dataclass(frozen=True)
class Options:
    """Compare two processes with one; each has one thread and a core of its own.

    Training is measured in samples per second of its steps. The other jobs are lists in two shards,
    done one after the other or at the same time; whole commands are timed, with their imports."""

    only: tuple[str, ...] = ()
    """training, curation, reconstruction, evaluation (default: all)."""
    preset: str = "tiny"
    """Sizes of the model to train."""
    batch_size: int = 4
    """Samples per process."""
    steps: int = 16
    """Training steps; the first two are not counted."""
    scenes: int = 4
    """Scenes to curate."""
    gaussian_steps: int = 300
    """Optimisation steps of each reconstruction."""
    views: int = 24
    """Photos of the evaluated scene; three quarters of them are held out."""
    results: Path = Path("results/scaling")
    """Folder of scaling.json and scaling.md."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"--preset {self.preset}: choose {', '.join(PRESETS)}")


# processes -------------------------------------------------------------------------------------


def run(commands: list[Command], cores: list[set[int]]) -> float:
    """Seconds until all commands have ended, each on its cores; ValueError if one fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    start = time.perf_counter()
    with TemporaryDirectory() as folder:
        logs = [Path(folder) / str(i) for i in range(len(commands))]
        running = []
        for command, own, log in zip(commands, cores, logs, strict=True):
            with log.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, *map(str, command)],
                    cwd=ROOT,
                    env=environment,
                    stdout=file,
                    stderr=file,
                    preexec_fn=lambda own=own: os.sched_setaffinity(0, own),
                )
            running.append(process)
        try:
            codes = [process.wait() for process in running]
        finally:
            for process in running:
                process.kill()
        took = time.perf_counter() - start
        for code, command, log in zip(codes, commands, logs, strict=True):
            if code:
                lines = log.read_text().strip().splitlines()
                said = [line for line in lines if line.startswith("error: ")] or lines[-1:]
                raise ValueError(f"{' '.join(map(str, command))}: exit code {code}, {said[:1]}")
    return took


def time_shards(commands: Callable[[Path], list[Command]], count: int, folder: Path) -> list[float]:
    """Items a second of the shards one after the other, and at the same time."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    alone = sum(run([command], [{first}]) for command in commands(folder / "alone"))
    together = run(commands(folder / "together"), [{first}, {second}])
    return [count / alone, count / together]


# jobs ------------------------------------------------------------------------------------------


def curate_command(folder: Path, count: int, shard: str | None, views: int, size: tuple[int, int]):
    """The command that renders so many degraded procedural scenes."""
    return [
        *("gen_data/gen_data.py", "--base_path", folder, "--procedural", count, "--seed", TABLES),
        *("--strategy", "sparse", "--train_every", 4, "--render_iter", 150, "--max_steps", 150),
        *("--densify", "mcmc", "--cap_max", 5000, "--device", "cpu"),
        *("--views", views, "--width", size[0], "--height", size[1]),
        *(("--shard", shard) if shard else ()),
    ]


def write_triplets(folder: Path, options: Options) -> Path:
    """Write a list of two scenes, train and val, with warped references, unless it is there."""
    listed = folder / "data.json"
    if not listed.exists():
        scenes, cores = folder / "scenes", os.sched_getaffinity(0)
        run([curate_command(scenes, 2, None, options.views, (256, 192))], [cores])
        command = ["gen_data/gen_data_json.py", "--base_path", scenes, "--warp", "--output", listed]
        command += ["--use_sparse", "--train_every", 4, "--split_file", folder / "split.json"]
        run([command], [cores])
    return listed


def time_training(folder: Path, options: Options) -> list[float]:
    """Samples per second of stage 1 with one process and with two, each with its whole batch."""
    listed, cores, rates = write_triplets(folder, options), sorted(os.sched_getaffinity(0))[:2], []
    weights = folder / "new.safetensors"
    loading.save(GSVAR(PRESETS[options.preset]()), weights)
    for count in (1, 2):
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["VAR_train.py", f"--json_path={listed}", f"--results={folder}"]
        command += [f"--var_pretrain_path={weights}", f"--batch_size={options.batch_size}"]
        command += [f"--steps={options.steps}", "--log_every=2", "--workers=0", "--fp16=0"]
        command += ["--num_samples_eval=1", f"--exp_name=on_{count}"]
        run([command], [set(cores[:count])])
        lines = (folder / f"on_{count}" / "metrics.jsonl").read_text().splitlines()
        rows = [row for row in map(json.loads, lines) if row["kind"] == "train"]
        rates.append(median(row["samples_per_second"] for row in rows if row["step"] > 2))
    return rates


def time_curation(folder: Path, options: Options) -> list[float]:
    """Scenes per second."""

    def commands(out: Path) -> list[Command]:
        shards = ("1/2", "2/2")
        return [curate_command(out, options.scenes, shard, 12, (192, 144)) for shard in shards]

    return time_shards(commands, options.scenes, folder / "curation")


def time_reconstruction(folder: Path, options: Options) -> list[float]:
    """Captures per second, without fixing and with a round that changes nothing."""

    def commands(out: Path) -> list[Command]:
        command = [
            "-m",
            "benchmarks.quality.distil",
            "--procedural",
            2,
            "--results",
            out,
            "--device",
        ]
        command += ["cpu", "--steps", options.gaussian_steps, "--cap", 5000, "--every", 4]
        command += ["--fixer", "identity", "--rounds", 1]
        return [[*command, "--shard", shard] for shard in ("1/2", "2/2")]

    return time_shards(commands, 2, folder / "reconstruction")


def time_evaluation(folder: Path, options: Options) -> list[float]:
    """Pictures per second, fixed and measured; the two lists are halves of one."""
    listed = write_triplets(folder, options)
    entries = manifest.read(str(listed), ("val",))
    for i in (0, 1):
        manifest.write(folder / f"part_{i}.json", {"val": entries[i::2]}, "gsvar")

    def commands(out: Path) -> list[Command]:
        return [
            [
                *("test_tile.py", f"--json_path={folder / f'part_{i}.json'}"),
                *(f"--testset_path={out / str(i)}", "--device=cpu"),
            ]
            for i in (0, 1)
        ]

    return time_shards(commands, len(entries), folder / "evaluation")


JOBS: dict[str, tuple[Callable[[Path, Options], list[float]], str]] = {
    "training": (time_training, "samples/s"),
    "curation": (time_curation, "scenes/s"),
    "reconstruction": (time_reconstruction, "captures/s"),
    "evaluation": (time_evaluation, "pictures/s"),
}


def main() -> None:
    """Run the jobs and write the table and scaling.json."""
    options = parse_command(Options, "python -m benchmarks.speed.scaling")
    unknown = set(options.only) - set(JOBS)
    if unknown:
        raise ValueError(f"nothing is called {sorted(unknown)[0]!r}: {', '.join(JOBS)}")
    if options.steps < 4:
        raise ValueError(f"--steps {options.steps}: give at least 4; the first two warm up")
    if len(os.sched_getaffinity(0)) < 2:
        raise ValueError("two processes beside one want two cores")
    rows, lines = [], ["| | one process | two | ratio |", "|---|---|---|---|"]
    with TemporaryDirectory() as folder:
        for name in options.only or JOBS:
            job, unit = JOBS[name]
            warn_if_busy(2)
            one, two = job(Path(folder), options)
            rows.append({"job": name, "unit": unit, "one": one, "two": two, "ratio": two / one})
            lines.append(f"| {name} | {one:.3g} {unit} | {two:.3g} | {two / one:.2f} |")
            sys.stderr.write(lines[-1] + "\n")
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    settings = {k: str(v) for k, v in asdict(options).items()} | {"torch": torch.__version__}
    write_json(options.results / "scaling.json", {"settings": settings, "rows": rows})
    with atomic_path(options.results / "scaling.md") as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    run_command(main)
