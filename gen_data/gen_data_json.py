# The triplets of curated scenes, listed in a JSON file; see --help and docs/curation.md.
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gen_data import jobs
from gen_data.scene_list import scene_names
from gen_data.scene_split import split_scenes
from gen_data.strategies import Name
from gen_data.triplets import Result, results, triplets, with_warped, write_warped
from runtime.command import run_command
from triplets import manifest
from triplets.manifest import Triplet

log = logging.getLogger("gen_data")

ABOUT = """
List what gen_data.py made as triplets: render, ground truth, references.

  python gen_data/gen_data_json.py --use_underfitting      # data/data_underfitting.json

  python gen_data/gen_data_json.py --use_sparse            # data/data_sparse.json

  python gen_data/gen_data_json.py --use_underfitting --use_sparse      # data/data.json

  python gen_data/gen_data_json.py --base_path ../dataset/procedural --warp --workers 2

Without --use_underfitting, --use_sparse and --strategies everything that is there is listed.
"""

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options:
    base_path: Path = Path("../dataset/DL3DV-10K-Benchmark")
    """Folder of the scenes with the results (gen_data.py's output_path)."""
    use_underfitting: Switch = False
    """Renders of training views, after 1000 steps unless --iterations says otherwise."""
    use_sparse: Switch = False
    """Held-out views of sparse reconstructions, N = 10 unless --train_every says otherwise."""
    strategies: tuple[Name, ...] = ()
    """Further strategies, with all that is there of them."""
    iterations: tuple[int, ...] = ()
    """Only renders after these steps."""
    train_every: tuple[int, ...] = ()
    """Only these N of sparse and noise."""
    ref_every: int = 10
    """Underfitting: every so many-th frame serves as reference."""
    candidates: int = 4
    """References an entry, nearest first."""
    warp: Switch = False
    """Also move each reference into the render's view, with a mask of where that is valid."""
    workers: int = 1
    """Processes that warp."""
    split_file: Path | None = None
    """Scenes by train and val (default: data/split_<base_path's name>.json); made if need be."""
    output: Path | None = None
    """File to write (default: data/data.json, data_underfitting.json or data_sparse.json)."""
    dialect: Literal["gsvar", "difix"] = "gsvar"
    """Names of splits and pictures: GS-VAR's (train, val; render, gt, ref) or Difix3D's."""


def main(o: Options) -> None:
    """Write the list. ValueError and FileNotFoundError in one sentence; SystemExit(1) if scenes
    could not be warped."""
    for name in ("ref_every", "candidates", "workers"):
        if getattr(o, name) < 1:
            raise ValueError(f"--{name} {getattr(o, name)} must be at least 1")
    names = scene_names(o.base_path)
    chosen, there = _chosen(o, names)
    if not chosen:
        have = ", ".join(sorted(there)) or "none"
        raise ValueError(
            f"--base_path {o.base_path} has no finished result as asked for (there: {have}); run "
            "gen_data.py first, or change --iterations, --train_every or --strategies"
        )
    made: dict[str, list[Triplet]] = {name: [] for name in sorted({r.scene for r, _ in chosen})}
    for result, iteration in chosen:
        options = {"ref_every": o.ref_every, "candidates": o.candidates}
        made[result.scene] += triplets(result, iteration, **options)
    split_file = o.split_file or Path("data") / f"split_{o.base_path.resolve().name}.json"
    parts = split_scenes(split_file, names, list(made))
    failures: dict[str, str] = {}
    if o.warp:
        made = {
            name: [with_warped(t) for t in made[name]] for part in parts.values() for name in part
        }
        failures = jobs.run(write_warped, made, o.workers)
    listed = {
        part if o.dialect == "gsvar" or part == "train" else "test": [
            t for name in parts[part] if name not in failures for t in made[name]
        ]
        for part in parts
    }
    output = o.output or Path("data") / _output_name(o)
    manifest.write(output, listed, o.dialect, relative=True)
    for part, entries in listed.items():
        scenes = len({t.render.parents[4] for t in entries})
        log.info("%s: %s has %d triplets of %d scenes", output, part, len(entries), scenes)
    if failures:
        log.error("%d scenes were left out: %s", len(failures), ", ".join(sorted(failures)))
        sys.exit(1)


def _chosen(o: Options, names: list[str]) -> tuple[list[tuple[Result, int]], set[str]]:
    """The results and iterations that the flags ask for, and short names of all that are there."""
    strategies = {*o.strategies}
    strategies |= {"underfitting"} if o.use_underfitting else set()
    strategies |= {"sparse"} if o.use_sparse else set()
    chosen, there = [], set()
    for name in names:
        found, unfinished = results(o.base_path / name)
        for folder in unfinished:
            log.warning("%s is not finished and left out", folder)
        for result in found:
            there |= {f"{result.folder.name} at {i}" for i in result.iterations}
            if strategies and result.strategy not in strategies:
                continue
            every = o.train_every
            published = o.use_sparse and "sparse" not in o.strategies
            if not every and result.strategy == "sparse" and published:
                every = (10,)
            if every and result.train_every not in (None, *every):
                continue
            chosen += [(result, i) for i in result.iterations if i in _iterations(o, result)]
    return chosen, there


def _iterations(o: Options, result: Result) -> tuple[int, ...]:
    """After how many steps a result's renders are listed."""
    if o.iterations:
        return o.iterations
    if o.use_underfitting and result.strategy == "underfitting":
        return result.iterations if "underfitting" in o.strategies else (1000,)
    if o.use_sparse and result.strategy == "sparse" and "sparse" not in o.strategies:
        return result.iterations[-1:]
    return result.iterations


def _output_name(o: Options) -> str:
    only = [o.use_underfitting, o.use_sparse, bool(o.strategies)]
    if only == [True, False, False]:
        return "data_underfitting.json"
    return "data_sparse.json" if only == [False, True, False] else "data.json"


def cli() -> None:
    """The command line."""
    run_command(
        lambda: main(
            tyro.cli(
                Options,
                prog="python gen_data/gen_data_json.py",
                description=ABOUT,
                use_underscores=True,
            )
        )
    )


if __name__ == "__main__":
    cli()
