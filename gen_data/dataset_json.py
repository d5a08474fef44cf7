# The JSON that lists triplets: three dialects are read, Difix3D's is written. data/README.md
# shows it.
from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.files import atomic_path

RENDER = ("image", "render")  # Difix3D and Fixer, GS-VAR
TRUTH = ("target_image", "gt")
REFERENCE = ("ref_image", "ref")
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class Triplet:
    """One entry: its key, a degraded render, the truth, and a reference view if it has one."""

    key: str
    render: Path
    truth: Path
    reference: Path | None = None


def read(source: str | Path, splits: Sequence[str]) -> list[Triplet]:
    """The triplets of the first of `splits` that is there, in the file's order.

    `source`: a JSON file, a folder with {split}_A and {split}_B (Fixer's), or several of either,
    comma-separated. Relative paths are looked up from the working directory, then from the JSON's.
    Raises FileNotFoundError and ValueError, in one sentence that names file, entry and key.
    """
    triplets: dict[str, Triplet] = {}
    for part in str(source).split(","):
        path = Path(part.strip())
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file (--json_path)")
        for triplet in _folder(path, splits) if path.is_dir() else _file(path, splits):
            if triplet.key in triplets:
                raise ValueError(f"{path}: the entry {triplet.key!r} is there twice")
            triplets[triplet.key] = triplet
    if not triplets:
        raise ValueError(f"{source}: the split {' or '.join(splits)} is empty")
    _check_files(source, list(triplets.values()))
    return list(triplets.values())


def write(path: str | Path, splits: Mapping[str, Iterable[Triplet]]) -> None:
    """Write triplets by split in Difix3D's dialect, whole or not at all."""
    content: dict[str, dict] = {}
    for split, triplets in splits.items():
        content[split] = {}
        for t in triplets:
            entry = {"image": str(t.render), "target_image": str(t.truth)}
            if t.reference is not None:
                entry["ref_image"] = str(t.reference)
            content[split][t.key] = entry | {"prompt": "remove degradation"}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


class RepeatedKey(ValueError):
    """A key that a JSON object has twice: the reader would keep one silently."""


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; raises RepeatedKey."""
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise RepeatedKey(repr(key))
        found[key] = value
    return found


def _file(path: Path, splits: Sequence[str]) -> list[Triplet]:
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=unique)
    except RepeatedKey as error:
        raise ValueError(f"{path}: the key {error} is there twice") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error})") from None
    found = [split for split in splits if isinstance(content, dict) and split in content]
    if not found:
        has = ", ".join(map(str, content)) if isinstance(content, dict) else "no splits"
        raise ValueError(f"{path} has no split {' or '.join(splits)} (it has {has or 'none'})")
    entries = content[found[0]]
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: the split {found[0]!r} must map keys to entries")
    triplets = []
    for key, entry in entries.items():
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: the entry {key!r} must be an object, not {entry!r:.40}")
        if not key or Path(key).name != key:
            raise ValueError(f"{path}: the key {key!r} cannot be a file name")
        render, truth = (_value(path, key, entry, names) for names in (RENDER, TRUTH))
        guide = _value(path, key, entry, REFERENCE, needed=False)
        triplets.append(Triplet(key, render, truth, guide))
    return triplets


def _value(
    path: Path, key: str, entry: dict, names: tuple[str, ...], needed: bool = True
) -> Path | None:
    """The path under the first of `names` that the entry has."""
    value = next((entry[name] for name in names if entry.get(name)), None)
    if value is None:
        if needed:
            raise ValueError(f"{path}: the entry {key!r} has no {' or '.join(names)}")
        return None
    if not isinstance(value, str):
        raise ValueError(
            f"{path}: the entry {key!r} has a {names[0]} that is no path: {value!r:.40}"
        )
    beside = path.parent / value
    return beside if not Path(value).exists() and beside.exists() else Path(value)


def _folder(path: Path, splits: Sequence[str]) -> list[Triplet]:
    """{split}_A against {split}_B, paired by name."""
    for split in splits:
        renders, truths = path / f"{split}_A", path / f"{split}_B"
        if renders.is_dir() and truths.is_dir():
            names = sorted(p.name for p in renders.iterdir() if p.suffix.lower() in PICTURES)
            return [Triplet(Path(name).stem, renders / name, truths / name) for name in names]
    raise ValueError(f"{path} has no {splits[0]}_A and {splits[0]}_B")


def _check_files(source: str | Path, triplets: list[Triplet]) -> None:
    missing = [
        (t.key, file)
        for t in triplets
        for file in (t.render, t.truth, t.reference)
        if file is not None and not file.is_file()
    ]
    if missing:
        key, file = missing[0]
        raise FileNotFoundError(
            f"{source}: {len(missing)} of its pictures are not there, first {file} of {key!r}"
        )
