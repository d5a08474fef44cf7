# RealEstate10K's chunks -> a folder with pictures and a JSON file for each scene; see --help.
from __future__ import annotations

import logging
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from runtime.command import run_command
from runtime.flags import parse_command

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Unpack RealEstate10K as pixelSplat distributes it: BASE_PATH/train/*.torch and test/*.torch.

    Writes OUTPUT_DIR/<mode>/images/<scene>/00000.jpg, metadata/<scene>.json and full_list.txt. The
    same command goes on with a stopped run; scenes that are there are left alone."""

    base_path: Annotated[Path, tyro.conf.arg(aliases=("--data_dir",))]
    """Folder with train/ and test/, or of chunks themselves."""
    output_dir: Path | None = None
    """Default: BASE_PATH/processed."""
    mode: Literal["train", "test"] = "train"
    """Which of the two."""
    num_processes: int = 4
    """Chunks at a time."""
    chunk_size: int = 1
    """Without effect; chunks are handed out one by one."""
    png: bool = False
    """Write PNG as the original's script did, several times as large as the pictures' own JPEG."""


def process_chunk(path: Path, folder: Path, as_png: bool) -> list[str]:
    """Write a chunk's scenes; the paths of their metadata."""
    from scenes.re10k import read_chunk, write_scene

    written = []
    for scene in read_chunk(path):
        metadata = folder / "metadata" / f"{scene.key}.json"
        if not metadata.exists():
            write_scene(scene, folder, as_png=as_png)
        written.append(str(metadata.absolute()))
    return written


def main(options: Options) -> None:
    """Process all chunks. Raises ValueError or OSError, naming the file or flag."""
    from runtime.files import make_writable_folder, write_bytes
    from runtime.progress import ProgressBar

    if options.num_processes < 1:
        raise ValueError(f"--num_processes {options.num_processes} must be at least 1")
    if not options.base_path.is_dir():
        raise FileNotFoundError(f"{options.base_path} is not a folder (--base_path)")
    inner = options.base_path / options.mode
    chunks = sorted((inner if inner.is_dir() else options.base_path).glob("*.torch"))
    if not chunks:
        raise FileNotFoundError(
            f"{options.base_path} has no chunks {options.mode}/*.torch (--base_path, --mode)"
        )
    folder = (options.output_dir or options.base_path / "processed") / options.mode
    make_writable_folder(folder)
    scenes: list[str] = []
    with ProcessPoolExecutor(options.num_processes) as pool:
        jobs = [pool.submit(process_chunk, chunk, folder, options.png) for chunk in chunks]
        try:
            for job in ProgressBar(jobs, "chunks", unit="chunk"):
                scenes += job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    write_bytes(folder / "full_list.txt", "".join(f"{path}\n" for path in scenes).encode())
    log.info("%d scenes of %d chunks in %s", len(scenes), len(chunks), folder / "full_list.txt")


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python utils/process_data.py")))
