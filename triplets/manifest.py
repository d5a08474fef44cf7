# The JSON that lists triplets, in the dialects of Difix3D (and Fixer), GS-VAR and Splatent, whose
# entries name latents (.pt) in place of pictures. All are read into one Triplet, and written.
# docs/formats.md shows it.
from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from runtime.files import atomic_path

log = logging.getLogger(__name__)

Dialect = Literal["difix", "gsvar", "splatent"]
NAMES = {  # of render, truth and reference; Splatent lists several references
    "difix": ("image", "target_image", "ref_image"),
    "gsvar": ("render", "gt", "ref"),
    "splatent": ("feature", "target_feature", "ref_features"),
}
RENDER, TRUTH, _ = zip(*NAMES.values(), strict=True)
REFERENCE = ("ref_image", "ref", "ref_feature")
LISTED = "ref_features"
PROMPT = "remove degradation"
LATENT = ".pt"
ABSOLUTE = re.compile(r"/|[A-Za-z]:[/\\]")  # also as Windows writes them
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}


@dataclass(frozen=True)
class View:
    """A pinhole camera in OpenCV axes: viewmat 4x4 (world to camera), K 3x3, size in pixels."""

    viewmat: tuple[tuple[float, ...], ...]
    K: tuple[tuple[float, ...], ...]
    width: int
    height: int


@dataclass(frozen=True)
class Reference:
    """Another photo of the scene.

    warped: the photo moved into the render's view; mask: where that is valid (white).
    """

    path: Path
    camera: View | None = None
    warped: Path | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Triplet:
    """One entry: its key, a degraded render, the truth, and a reference view if it has one.

    references: candidates, nearest first; `reference` is the first one's path.
    alpha: the render's opacity, a grey picture. camera: of render and truth.
    """

    key: str
    render: Path
    truth: Path
    reference: Path | None = None
    references: tuple[Reference, ...] = ()
    alpha: Path | None = None
    camera: View | None = None

    def __post_init__(self) -> None:
        if self.references and self.reference is None:
            object.__setattr__(self, "reference", self.references[0].path)
        if self.reference is not None and not self.references:
            object.__setattr__(self, "references", (Reference(self.reference),))
        if self.references and self.reference != self.references[0].path:
            raise ValueError(f"the reference of {self.key!r} must be the first of its references")

    @property
    def is_latent(self) -> bool:
        """Whether the files are latents, tensors [C,h,w] in .pt files, in place of pictures."""
        return self.render.suffix == LATENT

    @property
    def files(self) -> list[Path]:
        """Every picture or latent that the entry names."""
        others = [f for r in self.references for f in (r.path, r.warped, r.mask)]
        return [f for f in (self.render, self.truth, *others, self.alpha) if f is not None]


def read(
    source: str | Path,
    splits: Sequence[str],
    check: bool = True,
    root: Path | str | None = None,
) -> list[Triplet]:
    """The triplets of the first of `splits` that is there, in the file's order.

    `source`: a JSON file, a folder with {split}_A and {split}_B (Fixer's), or several of either,
    comma-separated. Relative paths are looked up from the working directory, then from the JSON's.
    Backslashes are read as slashes. Absolute paths that are not there are looked up below `root`,
    the JSON's folder and the working directory without what they begin with, which is logged.
    check: that all the pictures are there. Raises FileNotFoundError and ValueError, in one
    sentence that names file, entry and key.
    """
    triplets: dict[str, Triplet] = {}
    for part in str(source).split(","):
        path = Path(part.strip())
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file (--json_path)")
        listed = _folder(path, splits) if path.is_dir() else _file(path, splits)
        roots = [Path(place) for place in (root, path.parent, ".") if place is not None]
        for triplet in relocate(listed, roots):
            if triplet.key in triplets:
                raise ValueError(f"{path}: the entry {triplet.key!r} is there twice")
            triplets[triplet.key] = triplet
    if not triplets:
        raise ValueError(f"{source}: the split {' or '.join(splits)} is empty")
    if check:
        _check_files(source, list(triplets.values()))
    return list(triplets.values())


def has_split(source: str | Path, splits: Sequence[str]) -> bool:
    """Whether a list or folder, as for `read`, has one of the splits, be it empty or faulty. Raises
    FileNotFoundError, and ValueError for what is no list."""
    path = Path(source)
    if path.is_dir():
        return any((path / f"{split}_{part}").exists() for split in splits for part in "AB")
    content = _content(path)
    return not isinstance(content, dict) or any(split in content for split in splits)


def write(
    path: str | Path,
    splits: Mapping[str, Iterable[Triplet]],
    dialect: Dialect = "difix",
    *,
    relative: bool = False,
) -> None:
    """Write triplets by split in one of the dialects, whole or not at all.

    relative: paths are written relative to the file's folder, unless only the root is common.
    """
    if dialect not in NAMES:
        raise ValueError(f"unknown dialect {dialect!r}; choose {', '.join(NAMES)}")
    names = NAMES[dialect]
    folder = Path(path).absolute().parent
    content: dict[str, dict] = {}
    for split, triplets in splits.items():
        content[split] = {}
        for t in triplets:
            pictures = zip(names, (t.render, t.truth, t.reference), strict=True)
            entry = {name: _text(p, folder, relative) for name, p in pictures if p is not None}
            if dialect == "splatent":
                entry[LISTED] = [_text(r.path, folder, relative) for r in t.references]
            if t.alpha is not None:
                entry["alpha"] = _text(t.alpha, folder, relative)
            if t.camera is not None:
                entry["camera"] = _view_entry(t.camera)
            listed = dialect == "splatent" or len(t.references) < 2
            if any(r != Reference(r.path) for r in t.references) or not listed:
                entry["references"] = [_reference_entry(r, folder, relative) for r in t.references]
            if dialect != "gsvar":
                entry["prompt"] = PROMPT
            content[split][t.key] = entry
    with atomic_path(path) as temporary:
        temporary.write_text(_lines(content))


def _lines(content: dict[str, dict]) -> str:
    """JSON with a line for each entry: lists are long, and people look into them."""
    splits = []
    for split, entries in content.items():
        lines = [f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items()]
        splits.append(f" {json.dumps(split)}: {{" + ",".join(f"\n{line}" for line in lines) + "}")
    return "{\n" + ",\n".join(splits) + "\n}\n"


def _text(file: Path, folder: Path, relative: bool) -> str:
    absolute = Path(os.path.normpath(file.absolute()))
    if relative and absolute.parts[:2] == folder.parts[:2]:
        return Path(os.path.relpath(absolute, folder)).as_posix()
    return str(absolute if relative else file)


def _reference_entry(reference: Reference, folder: Path, relative: bool) -> dict:
    files = {"image": reference.path, "warped": reference.warped, "mask": reference.mask}
    entry = {name: _text(f, folder, relative) for name, f in files.items() if f is not None}
    camera = reference.camera
    return entry if camera is None else entry | {"camera": _view_entry(camera)}


def _view_entry(view: View) -> dict:
    return {
        "viewmat": [list(row) for row in view.viewmat],
        "K": [list(row) for row in view.K],
        "width": view.width,
        "height": view.height,
    }


class RepeatedKey(ValueError):
    """A key that a JSON object has twice: the reader would keep one silently."""


def reject_repeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; raises RepeatedKey."""
    unique: dict[str, object] = {}
    for key, value in pairs:
        if key in unique:
            raise RepeatedKey(repr(key))
        unique[key] = value
    return unique


def _content(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8-sig"), object_pairs_hook=reject_repeated)
    except RepeatedKey as error:
        raise ValueError(f"{path}: the key {error} is there twice") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error})") from None


def _file(path: Path, splits: Sequence[str]) -> list[Triplet]:
    content = _content(path)
    there = [split for split in splits if isinstance(content, dict) and split in content]
    if not there:
        has = ", ".join(map(str, content)) if isinstance(content, dict) else "no splits"
        raise ValueError(f"{path} has no split {' or '.join(splits)} (it has {has or 'none'})")
    entries = content[there[0]]
    if not isinstance(entries, dict):
        raise ValueError(f"{path}: the split {there[0]!r} must map keys to entries")
    triplets = []
    for key, entry in entries.items():
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: the entry {key!r} must be an object, not {entry!r:.40}")
        if not key or Path(key).name != key:
            raise ValueError(f"{path}: the key {key!r} cannot be a file name")
        render, truth = (_value(path, key, entry, names) for names in (RENDER, TRUTH))
        guide = _value(path, key, entry, REFERENCE, needed=False)
        guides = _references(path, key, entry)
        if guide is not None and guides and guide != guides[0].path:
            raise ValueError(
                f"{path}: the entry {key!r} has a reference that is not the first of references"
            )
        alpha = _value(path, key, entry, ("alpha",), needed=False)
        camera = view_from(entry.get("camera"), f"{path}: the camera of {key!r}")
        triplets.append(Triplet(key, render, truth, guide, guides, alpha, camera))
    return triplets


def _references(path: Path, key: str, entry: dict) -> tuple[Reference, ...]:
    """The candidates of an entry, nearest first; none if it lists none."""
    latents = entry.get(LISTED)
    if latents is not None and "references" not in entry:
        if not isinstance(latents, list) or not all(isinstance(item, str) for item in latents):
            raise ValueError(f"{path}: the {LISTED} of {key!r} must be a list of paths")
        return tuple(Reference(_value(path, key, {LISTED: item}, (LISTED,))) for item in latents)
    listed = entry.get("references") or []
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        raise ValueError(f"{path}: the references of {key!r} must be a list of objects")
    return tuple(
        Reference(
            _value(path, key, item, ("image",)),
            view_from(item.get("camera"), f"{path}: the camera of a reference of {key!r}"),
            _value(path, key, item, ("warped",), needed=False),
            _value(path, key, item, ("mask",), needed=False),
        )
        for item in listed
    )


def view_from(value: object, what: str) -> View | None:
    """A camera as JSON has it, None for none; ValueError in a sentence that begins with `what`."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object with viewmat, K, width and height")
    for name, n in (("viewmat", 4), ("K", 3)):
        rows = value.get(name)
        square = isinstance(rows, list) and len(rows) == n
        if not square or not all(isinstance(row, list) and len(row) == n for row in rows):
            raise ValueError(f"{what} needs {name}, a {n}x{n} matrix")
        if not all(type(x) in (int, float) and math.isfinite(x) for row in rows for x in row):
            raise ValueError(f"{what} has a {name} with values that are no finite numbers")
    for name in ("width", "height"):
        if type(value.get(name)) is not int or value[name] < 1:
            raise ValueError(f"{what} needs {name}, a whole number of pixels")
    matrices = (tuple(tuple(map(float, row)) for row in value[n]) for n in ("viewmat", "K"))
    return View(*matrices, value["width"], value["height"])


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
    if not Path(value).exists():  # on Linux a backslash may be part of a name
        value = value.replace("\\", "/")
    beside = path.parent / value
    return beside if not Path(value).exists() and beside.exists() else Path(value)


def relocate(triplets: list[Triplet], roots: Sequence[Path]) -> list[Triplet]:
    """The triplets of a list that was written elsewhere: what the absolute paths of missing files
    begin with is replaced by the root below which the rest is there, and logged."""
    moves: dict[str, Path] = {}

    def move(file: Path | None) -> Path | None:
        if file is None or not ABSOLUTE.match(str(file)) or file.is_file():
            return file
        for start, root in moves.items():
            if str(file).startswith(start):
                return root / str(file)[len(start) :]
        parts = file.as_posix().split("/")
        for count in range(1, len(parts)):  # the longest rest first
            rest = "/".join(parts[count:])
            root = next((root for root in roots if (root / rest).is_file()), None)
            if root is not None:
                start = "/".join(parts[:count]) + "/"
                moves[start] = root
                log.info("pictures listed below %s are read from %s", start, root.absolute())
                return root / rest
        return file

    def move_reference(reference: Reference) -> Reference:
        return replace(
            reference,
            path=move(reference.path),
            warped=move(reference.warped),
            mask=move(reference.mask),
        )

    return [
        replace(
            triplet,
            render=move(triplet.render),
            truth=move(triplet.truth),
            alpha=move(triplet.alpha),
            reference=None,
            references=tuple(map(move_reference, triplet.references)),
        )
        for triplet in triplets
    ]


def _folder(path: Path, splits: Sequence[str]) -> list[Triplet]:
    """{split}_A against {split}_B, paired by name."""
    for split in splits:
        renders, truths = path / f"{split}_A", path / f"{split}_B"
        if renders.is_dir() and truths.is_dir():
            names = sorted(p.name for p in renders.iterdir() if p.suffix.lower() in PICTURES)
            return [Triplet(Path(name).stem, renders / name, truths / name) for name in names]
    raise ValueError(f"{path} has no {splits[0]}_A and {splits[0]}_B")


def _check_files(source: str | Path, triplets: list[Triplet]) -> None:
    missing = [(t.key, file) for t in triplets for file in t.files if not file.is_file()]
    if missing:
        key, file = missing[0]
        raise FileNotFoundError(
            f"{source}: {len(missing)} of its pictures are not there, first {file} of {key!r}"
        )
