# Which views train and which are held out. gsplat, Difix3D and GS-VAR use the name test_every for
# three incompatible rules, so the rule is explicit and shown to users.
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from runtime.text import format_count, format_ordinal
from scenes.scene import Split

RULES = ("gsplat", "difix", "filename", "json", "capture", "all")


def make_split(
    names: tuple[str, ...],
    rule: str | None = None,
    test_every: int | None = None,
    split_file: Path | str | None = None,
    stated: Mapping[str, str] | None = None,
    photos: tuple[str, ...] | None = None,
) -> Split:
    """Split views, given in sorted order, by one of RULES.

    Without a rule, `split_file` means json and `test_every` difix, as in Difix3D's commands;
    otherwise a split that the capture states (`stated`: "train" or "test" by name) means capture,
    names with `_train_` and `_eval_` mean filename, others gsplat with 8.
    gsplat: view i is held out if i % test_every == 0. difix: the opposite, view i *trains* if
    i % test_every == 0; 1 means the filename rule and 0 means all. filename: `_train_` and
    `_eval_` in the name. json: lists of names in `split_file`, {"train", "test" or "val"} or
    GenFusion's {"train_ids", "test_ids"}. capture: as stated. all: every view trains.
    photos: the photo of each view, if views share some; the views of one stay together.
    Raises ValueError if no view trains, or none is held out (except for `all`).
    """
    if photos is not None and len(set(photos)) < len(names):
        return _split_by_photo(names, photos, rule, test_every, split_file, stated)
    if rule is None:
        rule = _detect_rule(names, test_every, split_file, stated)
    if rule not in RULES:
        raise ValueError(f"--split {rule} is not known; choose one of {', '.join(RULES)}")
    if split_file is not None and rule != "json":
        raise ValueError(f"--split {rule} does not use --split_file {split_file}; give one of them")
    test_every = 8 if test_every is None else test_every
    n = len(names)
    if rule == "all" or (rule == "difix" and test_every == 0):
        return Split(rule, tuple(range(n)), (), f"{rule}: all {n} views train, none is held out")
    if rule == "filename" or (rule == "difix" and test_every == 1):
        return _make_nonempty(rule, names, *_split_by_filename(names))
    if rule == "json":
        if split_file is None:
            raise ValueError("--split json needs --split_file with the lists of names")
        return _make_nonempty(rule, names, *_split_by_file(names, Path(split_file)))
    if rule == "capture":
        if stated is None:
            raise ValueError(
                "--split capture needs a capture that states a split: transforms_train.json and "
                "transforms_test.json, train_filenames and test_filenames in transforms.json, or a "
                "test.txt beside a COLMAP model; use another --split"
            )
        parts = [
            tuple(i for i, name in enumerate(names) if stated.get(name) == part)
            for part in ("train", "test")
        ]
        return _make_nonempty(rule, names, *parts, "the capture states which views are held out")
    if test_every < 2:
        raise ValueError(
            f"--test_every {test_every} leaves no split; use 2 or more, or --split all"
        )
    every_nth = tuple(range(0, n, test_every))
    others = tuple(i for i in range(n) if i % test_every)
    every = f"every {format_ordinal(test_every)} view"
    if rule == "gsplat":
        return _make_nonempty(rule, names, others, every_nth, f"{every} is held out")
    return _make_nonempty(rule, names, every_nth, others, f"{every} trains")


def _detect_rule(
    names: tuple[str, ...],
    test_every: int | None,
    split_file: Path | str | None,
    stated: Mapping[str, str] | None,
) -> str:
    """The rule that the other arguments imply."""
    if split_file is not None:
        return "json"
    if test_every is not None:
        return "difix"
    if stated is not None:
        return "capture"
    has_train = any("_train_" in name for name in names)
    has_eval = any("_eval_" in name for name in names)
    return "filename" if has_train and has_eval else "gsplat"


def _split_by_photo(
    names: tuple[str, ...],
    photos: tuple[str, ...],
    rule: str | None,
    test_every: int | None,
    split_file: Path | str | None,
    stated: Mapping[str, str] | None,
) -> Split:
    """The split of the photos, given to all views of each."""
    unique = tuple(sorted(set(photos)))
    part_of = {
        photo: stated[name]
        for name, photo in zip(names, photos, strict=True)
        if stated is not None and name in stated
    }
    split = make_split(unique, rule, test_every, split_file, None if stated is None else part_of)
    train, test = ({unique[i] for i in part} for part in (split.train, split.test))
    return Split(
        split.rule,
        tuple(i for i, photo in enumerate(photos) if photo in train),
        tuple(i for i, photo in enumerate(photos) if photo in test),
        f"{split.text} (photos, of which {len(names)} views are cut)",
    )


def _make_nonempty(
    rule: str, names: tuple[str, ...], train: tuple[int, ...], test: tuple[int, ...], why: str
) -> Split:
    """The split; ValueError if a part is empty."""
    remedy = "change --test_every or --split, or use --split all to train on every view"
    if rule == "json":
        remedy = "correct the file, or use another --split"
    if rule == "filename":
        remedy = "name photos with _train_ and _eval_, or use another --split"
    if not train or not test:
        lacking = "no view to train on" if not train else "no view to test on"
        raise ValueError(f"the {rule} split of {len(names)} views leaves {lacking}; {remedy}")
    unused = len(names) - len(train) - len(test)
    text = f"{rule}: {why}; {len(train)} train, {len(test)} test"
    return Split(rule, train, test, text + (f", {unused} unused" if unused else ""))


def _split_by_filename(names: tuple[str, ...]) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    marks = ("_train_", "_eval_")
    if not any(mark in name for mark in marks for name in names):
        marks = ("train", "eval")  # nerfstudio's looser rule
    bases = [PurePosixPath(name).name for name in names]
    train = tuple(i for i, base in enumerate(bases) if marks[0] in base)
    test = tuple(i for i, base in enumerate(bases) if marks[1] in base and i not in train)
    return train, test, f"{marks[0]} and {marks[1]} in the names decide"


def _split_by_file(
    names: tuple[str, ...], file: Path
) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    try:
        lists = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{file} is not JSON; the split file holds lists of names") from None
    lists = lists if isinstance(lists, dict) else {}
    train = lists.get("train", lists.get("train_ids"))
    test = lists.get("test", lists.get("val", lists.get("test_ids")))
    if not isinstance(train, list) or not isinstance(test, list):
        raise ValueError(
            f'{file} needs two lists, {{"train": [...], "test": [...]}}; "val" also means "test"'
        )
    # A name is matched whole, then without folders, then without suffix; a number is an index.
    indices_of: dict[str | int, list[int]] = {i: [i] for i in range(len(names))}
    for key in (str, lambda name: PurePosixPath(name).name, lambda name: PurePosixPath(name).stem):
        alike = defaultdict(list)
        for i, name in enumerate(names):
            alike[key(name)].append(i)
        indices_of = alike | indices_of

    def find(entry: object) -> list[int]:
        path = PurePosixPath(str(entry))
        keys = [entry] if type(entry) is int else [str(entry), path.name, path.stem]
        indices = next((indices_of[key] for key in keys if key in indices_of), [])
        if len(indices) > 1 and path.name == str(entry):
            both = " or ".join(names[i] for i in indices[:2])
            raise ValueError(f"{file}: {entry} is ambiguous, {both}; name the photo in full")
        return indices if len(indices) == 1 else []

    parts = [tuple(sorted({i for entry in part for i in find(entry)})) for part in (train, test)]
    both = set(parts[0]) & set(parts[1])
    if both:
        raise ValueError(f"{file} lists {names[min(both)]} both as train and as test")
    unknown = len(train) + len(test) - len(parts[0]) - len(parts[1])
    why = f"the lists of {file.name} decide"
    return *parts, why + (f" ({format_count(unknown, 'name')} of no photo)" if unknown > 0 else "")
