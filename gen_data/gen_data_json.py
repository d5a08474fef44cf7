# Curated scenes -> a JSON manifest of their triplets; see --help and docs/curation.md.
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gen_data.scene_list import list_scenes
from gen_data.scene_split import split_scenes
from gen_data.strategies import Name
from runtime.command import run_command
from runtime.flags import parse_command

if TYPE_CHECKING:
    from gen_data.results import Result
    from triplets.manifest import Triplet

log = logging.getLogger("gen_data")

ABOUT = """
List the results of gen_data.py as triplets: render, ground truth, references.

  python gen_data/gen_data_json.py --use_underfitting      # data/data_underfitting.json

  python gen_data/gen_data_json.py --use_sparse            # data/data_sparse.json

  python gen_data/gen_data_json.py --use_underfitting --use_sparse      # data/data.json

  python gen_data/gen_data_json.py --base_path ../dataset/procedural --warp --workers 2

Without --use_underfitting, --use_sparse and --strategies, all results are listed.
"""

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options:
    """Flags of gen_data_json.py."""

    base_path: Path = Path("../dataset/DL3DV-10K-Benchmark")
    """Folder of the scenes with their results (output_path of gen_data.py)."""
    use_underfitting: Switch = False
    """Renders of training views, after 1000 steps unless --iterations is given."""
    use_sparse: Switch = False
    """Held-out views of sparse reconstructions, N = 10 unless --train_every is given."""
    strategies: tuple[Name, ...] = ()
    """Further strategies, with all their results."""
    iterations: tuple[int, ...] = ()
    """Only renders after these steps."""
    train_every: tuple[int, ...] = ()
    """Only these N of sparse and noise."""
    ref_every: int = 10
    """Underfitting: every N-th frame serves as a reference."""
    candidates: int = 4
    """References per entry, nearest first."""
    warp: Switch = False
    """Also warp each reference into the render's view, with a mask of the valid pixels."""
    workers: int = 1
    """Number of processes that warp."""
    split_file: Path | None = None
    """JSON of the scenes in train and val (default: data/split_<base_path's name>.json); written
    if it does not exist."""
    output: Path | None = None
    """File to write (default: data/data.json, data_underfitting.json or data_sparse.json)."""
    dialect: Literal["gsvar", "difix"] = "gsvar"
    """Names of the splits and pictures: GS-VAR's (train, val; render, gt, ref) or Difix3D's."""


def main(o: Options) -> None:
    """Write the manifest.

    Raises ValueError or FileNotFoundError, naming the flag or file, and SystemExit(1) if scenes
    could not be warped.
    """
    from gen_data.triplets import add_warped_paths, build_triplets, write_warped
    from gen_data.workers import run_in_workers
    from triplets import manifest

    for name in ("ref_every", "candidates", "workers"):
        if getattr(o, name) < 1:
            raise ValueError(f"--{name} {getattr(o, name)} must be at least 1")
    names = list_scenes(o.base_path)
    selected, available = _select_results(o, names)
    if not selected:
        have = ", ".join(sorted(available)) or "none"
        raise ValueError(
            f"--base_path {o.base_path} has no finished result as asked for (there: {have}); run "
            "gen_data.py first, or change --iterations, --train_every or --strategies"
        )
    triplets: dict[str, list[Triplet]] = {}
    for result, iteration in sorted(selected, key=lambda pair: pair[0].scene):
        options = {"ref_every": o.ref_every, "candidates": o.candidates}
        triplets.setdefault(result.scene, []).extend(build_triplets(result, iteration, **options))
    split_file = o.split_file or Path("data") / f"split_{o.base_path.resolve().name}.json"
    parts = split_scenes(split_file, names, list(triplets))
    failures: dict[str, str] = {}
    if o.warp:
        triplets = {
            name: [add_warped_paths(t) for t in triplets[name]]
            for part in parts.values()
            for name in part
        }
        failures = run_in_workers(write_warped, triplets, o.workers)
    listed = {
        part if o.dialect == "gsvar" or part == "train" else "test": [
            t for name in parts[part] if name not in failures for t in triplets[name]
        ]
        for part in parts
    }
    output = o.output or Path("data") / _output_name(o)
    # Without a key, training validates on its own entries; an empty split would be a mistake.
    filled = {part: entries for part, entries in listed.items() if entries or part == "train"}
    manifest.write(output, filled, o.dialect, relative=True)
    for part, entries in listed.items():
        scenes = len({t.render.parents[4] for t in entries})
        log.info("%s: %s has %d triplets of %d scenes", output, part, len(entries), scenes)
    if failures:
        log.error(
            "%d scenes failed and are not listed: %s", len(failures), ", ".join(sorted(failures))
        )
        sys.exit(1)


def _select_results(o: Options, names: list[str]) -> tuple[list[tuple[Result, int]], set[str]]:
    """The results and iterations that the flags select, and short names of all that exist."""
    from gen_data.results import find_results

    strategies = {*o.strategies}
    strategies |= {"underfitting"} if o.use_underfitting else set()
    strategies |= {"sparse"} if o.use_sparse else set()
    selected, available = [], set()
    for name in names:
        finished, unfinished = find_results(o.base_path / name)
        for folder in unfinished:
            log.warning("%s is unfinished and ignored", folder)
        for result in finished:
            available |= {f"{result.folder.name} at {i}" for i in result.iterations}
            if strategies and result.strategy not in strategies:
                continue
            every = o.train_every
            published = o.use_sparse and "sparse" not in o.strategies
            if not every and result.strategy == "sparse" and published:
                every = (10,)
            if every and result.train_every not in (None, *every):
                continue
            selected += [(result, i) for i in result.iterations if i in _iterations(o, result)]
    return selected, available


def _iterations(o: Options, result: Result) -> tuple[int, ...]:
    """The iterations of a result that are listed."""
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
    """Run the command line."""
    run_command(
        lambda: main(parse_command(Options, "python gen_data/gen_data_json.py", description=ABOUT))
    )


if __name__ == "__main__":
    cli()
