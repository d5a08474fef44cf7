# Which scenes a command works on: benchmark-meta.csv's or the folders', a range and a shard.
from __future__ import annotations

import csv
from pathlib import Path

from runtime.shards import Shard

META = "benchmark-meta.csv"  # of DL3DV-Benchmark; its column `hash` names the scenes


def scene_names(base: Path | str, leave_out: Path | None = None) -> list[str]:
    """The scenes below `base`, sorted: those of benchmark-meta.csv, else its folders.

    leave_out: a folder that holds no scene. FileNotFoundError without `base`, ValueError for a
    broken csv or no scene at all.
    """
    base = Path(base)
    if not base.is_dir():
        reason = "is not a folder" if base.exists() else "does not exist"
        raise FileNotFoundError(f"--base_path {base} {reason}")
    names = _from_csv(base / META) if (base / META).is_file() else _from_folders(base, leave_out)
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


def _from_folders(base: Path, leave_out: Path | None) -> list[str]:
    hidden = leave_out.resolve() if leave_out is not None else None
    folders = [f for f in base.iterdir() if f.is_dir() and not f.name.startswith(".")]
    return sorted(f.name for f in folders if f.resolve() != hidden)


def capture_folder(base: Path, name: str) -> Path:
    """`<base>/<name>/gaussian_splat` as DL3DV-Benchmark has it, else `<base>/<name>`."""
    nested = base / name / "gaussian_splat"
    return nested if nested.is_dir() else base / name


def choose(names: list[str], start: int, end: int | None, shard: Shard | None = None) -> list[str]:
    """names[start:end], every n-th of them for a shard; ValueError if the range is empty."""
    if start < 0 or (end is not None and end <= start):
        raise ValueError(
            f"--idx_start {start} --idx_end {end} is no range; the end is not included"
        )
    chosen = names[start:end]
    if not chosen:
        raise ValueError(f"--idx_start {start} is beyond the last of {len(names)} scenes")
    return shard.of(chosen) if shard else chosen
