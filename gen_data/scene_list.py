# The scenes of a data set: listed in benchmark-meta.csv or by folder; a range or shard of them.
from __future__ import annotations

import csv
from pathlib import Path

from runtime.shards import Shard

META = "benchmark-meta.csv"  # of DL3DV-Benchmark; its column `hash` names the scenes


def list_scenes(base: Path | str, exclude: Path | None = None) -> list[str]:
    """The scenes in `base`, sorted: those in benchmark-meta.csv, else its folders.

    exclude: a folder that is no scene. Raises FileNotFoundError if `base` does not exist,
    ValueError for a damaged CSV file or if there is no scene.
    """
    base = Path(base)
    if not base.is_dir():
        reason = "is not a folder" if base.exists() else "does not exist"
        raise FileNotFoundError(f"--base_path {base} {reason}")
    names = _from_csv(base / META) if (base / META).is_file() else _from_folders(base, exclude)
    if not names:
        raise ValueError(f"--base_path {base} has no scenes: no {META} and no folders")
    return names


def _from_csv(file: Path) -> list[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{file} is not a CSV file ({error})") from None
    names = {(row.get("hash") or "").strip() for row in rows} - {""}
    if not names:
        raise ValueError(f"{file} names no scenes: it needs a column `hash`")
    wrong = next((name for name in sorted(names) if Path(name).name != name), None)
    if wrong is not None:
        raise ValueError(f"{file} names the scene {wrong!r}, which is no folder's name")
    return sorted(names)


def _from_folders(base: Path, exclude: Path | None) -> list[str]:
    hidden = exclude.resolve() if exclude is not None else None
    folders = [f for f in base.iterdir() if f.is_dir() and not f.name.startswith(".")]
    return sorted(f.name for f in folders if f.resolve() != hidden)


def find_capture_folder(base: Path, name: str) -> Path:
    """`<base>/<name>/gaussian_splat`, as in DL3DV-Benchmark, else `<base>/<name>`."""
    nested = base / name / "gaussian_splat"
    return nested if nested.is_dir() else base / name


def select_scenes(
    names: list[str], start: int, end: int | None, shard: Shard | None = None
) -> list[str]:
    """names[start:end], or the shard's part of them; ValueError if the range is empty."""
    if start < 0 or (end is not None and end <= start):
        raise ValueError(
            f"--idx_start {start} --idx_end {end} is no range; the end is not included"
        )
    selected = names[start:end]
    if not selected:
        raise ValueError(f"--idx_start {start} is beyond the last of {len(names)} scenes")
    return shard.select(selected) if shard else selected
