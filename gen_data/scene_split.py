# The split of the scenes into train and val: drawn once, written to a file, then read from it.
from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from runtime.files import atomic_path

log = logging.getLogger(__name__)

TRAIN, ALL = 120, 140  # of DL3DV-Benchmark's sorted scenes, in GS-VAR
PARTS = ("train", "val")


def draw_split(names: Sequence[str]) -> dict[str, list[str]]:
    """The first 120 of 140 sorted scenes train, in proportion; two or more leave one for val."""
    names = sorted(names)
    count = round(len(names) * TRAIN / ALL)
    if len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
    return {"train": names[:count], "val": names[count:]}


def split_scenes(file: Path, names: Sequence[str], curated: Sequence[str]) -> dict[str, list[str]]:
    """The curated scenes by part ("train", "val"), as listed in `file`.

    Without the file a split of all `names` is drawn and written, or of the curated ones if a part
    would have none otherwise. Scenes not in the file are ignored with a warning. Raises ValueError
    for a damaged file.
    """
    if file.exists():
        split = _read(file)
    else:
        split = draw_split(names)
        if any(not set(split[part]) & set(curated) for part in PARTS):
            split = draw_split(curated)
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(split, indent=1))
        log.info("wrote the split of the scenes to %s", file)
    unknown = sorted(set(curated) - set(split["train"]) - set(split["val"]))
    if unknown:
        log.warning(
            "%d scenes are left out, since %s does not list them (%s, ...); add them there, or "
            "remove the file for a new split",
            *(len(unknown), file, unknown[0]),
        )
    return {part: [name for name in split[part] if name in set(curated)] for part in PARTS}


def _read(file: Path) -> dict[str, list[str]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON ({error})") from None
    parts = [content.get(part) if isinstance(content, dict) else None for part in PARTS]
    if not all(isinstance(p, list) and all(isinstance(n, str) for n in p) for p in parts):
        raise ValueError(f'{file} needs two lists of scenes, {{"train": [...], "val": [...]}}')
    both = sorted(set(parts[0]) & set(parts[1]))
    if both:
        raise ValueError(f"{file} lists {both[0]} both as train and as val")
    return dict(zip(PARTS, parts, strict=True))
