# Which triplets are trained and validated on: the lists that flags name, and what is usable.
from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from runtime.progress import ProgressBar
from scenes.photos import list_photos
from training.flags import Triplets
from triplets import manifest
from triplets.guides import Guides
from triplets.manifest import Triplet
from triplets.pictures import read_size, size_text

log = logging.getLogger(__name__)

HELD_OUT = ("val", "test")  # the first of these splits that a list has is validated on


def load_entries(
    flags: Triplets, *, references: int, alpha: bool = False, pictures: Path | None = None
) -> tuple[list[Triplet], list[Triplet], str]:
    """The triplets to train and to validate on, of the flags' lists or a folder of `pictures`, and
    what must be known of the latter: where no list has any, they are among the former.

    references: how many each must have. alpha: the renders' alpha is read too. Raises ValueError
    and OSError for what cannot be used.
    """
    note = ""
    if pictures is not None:
        entries = list_pictures(pictures)
        every = max(2, len(entries) // max(1, min(flags.num_samples_eval, len(entries) // 10)))
        learnt = [t for i, t in enumerate(entries) if i % every] or entries
        held = entries[::every]
    else:
        learnt = read_lists(flags.json_path, ("train",), flags.root)
        held, note = read_held_out(flags.json_path, flags.root)
        held = held or learnt
        if note:
            log.warning("%s", note)
    options = {"references": references, "warped": bool(flags.use_warped), "alpha": alpha}
    options["skip_bad"] = flags.skip_bad
    learnt = select_usable(learnt, **options)
    return learnt, select_usable(spread(held, flags.num_samples_eval), **options), note


def read_lists(path: str, splits: tuple[str, ...], root: Path | None = None) -> list[Triplet]:
    """The lists' entries; whether their pictures are there is looked at later. In training those
    of FILE*3 count three times. Raises ValueError and OSError."""
    files = [part.strip().partition("*") for part in path.split(",")]
    wrong = [file for file, star, times in files if star and not (times.isdigit() and int(times))]
    if wrong:
        raise ValueError(f"--json_path: {wrong[0]}*N wants a number of at least 1 behind the star")
    entries = manifest.read(",".join(file for file, _, _ in files), splits, False, root)
    for file, star, times in files:
        if star and "train" in splits:
            entries += manifest.read(file, splits, False, root) * (int(times) - 1)
    return entries


def read_held_out(path: str, root: Path | None = None) -> tuple[list[Triplet], str]:
    """The entries to validate on, and a sentence on lists that have no split for them: they are
    passed over, and if all are, there is no entry.

    Raises ValueError and OSError, also where lists have such splits and all of them are empty.
    """
    files = [part.partition("*")[0].strip() for part in path.split(",")]
    without = [file for file in files if not manifest.has_split(file, HELD_OUT)]
    held = [file for file in files if file not in without]
    entries = manifest.read(",".join(held), HELD_OUT, False, root) if held else []
    if not without:
        return entries, ""
    others = "entries of the other lists" if held else "training entries"
    note = f"{', '.join(without)} has no val split: validating on {others}"
    return entries, note if held else f"{note}, which says little about new ones"


def spread(triplets: list[Triplet], count: int) -> list[Triplet]:
    """At most `count` of them, evenly over the list."""
    count = min(count, len(triplets))
    return [triplets[i * len(triplets) // count] for i in range(count)]


def select_usable(
    triplets: Sequence[Triplet],
    *,
    references: int,
    warped: bool,
    alpha: bool = False,
    skip_bad: bool,
) -> list[Triplet]:
    """The triplets that can be trained on, by their files' headers.

    Raises FileNotFoundError or ValueError for the first that cannot, in one sentence that names
    entry and file; with `skip_bad` those are counted and left out. Raises ValueError if none is
    left.
    """
    good, bad = [], []
    for triplet in ProgressBar(triplets, "checking", unit="entry", delay=3):
        try:
            check_entry(triplet, references, warped, alpha)
            good.append(triplet)
        except (OSError, ValueError) as error:
            if not skip_bad:
                raise
            bad.append(str(error))
    if bad:
        log.warning("left out %d of %d entries, first: %s", len(bad), len(triplets), bad[0])
    if not good:
        raise ValueError(f"none of {len(triplets)} entries can be used, first: {bad[0]}")
    return good


def check_entry(triplet: Triplet, references: int, warped: bool, alpha: bool = False) -> None:
    """Raise FileNotFoundError or ValueError, naming entry and file, for one that cannot be used."""
    if len(triplet.references) < references:
        has = len(triplet.references) or "no"
        raise ValueError(
            f"{triplet.key}: {has} reference{'' if has == 1 else 's'} (ref_image or ref), and "
            f"{references} asked for: give them, or --use_ref=False"
        )
    guides = Guides(references, warped).files(triplet)
    alphas = [triplet.alpha] if alpha and triplet.alpha is not None else []
    for file in (triplet.render, triplet.truth, *guides, *alphas):
        if not file.is_file():
            raise FileNotFoundError(f"{triplet.key}: {file} is not there")
    try:
        sizes = [read_size(file) for file in (triplet.render, triplet.truth, *guides)]
    except ValueError as error:
        raise ValueError(f"{triplet.key}: {error}") from None
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"{triplet.key}: the render {triplet.render} is {size_text(sizes[0])}, the ground "
            f"truth {triplet.truth} {size_text(sizes[1])}"
        )


def list_pictures(folder: Path) -> list[Triplet]:
    """A folder's pictures, each its own render and truth, to train a tokenizer on. Raises
    FileNotFoundError and ValueError."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder of pictures (--images)")
    names = list_photos(folder, deep=True)
    if not names:
        raise ValueError(f"{folder} has no pictures (--images)")
    return [Triplet(name.replace("/", "_"), folder / name, folder / name) for name in names]


def check_triplet_flags(flags: Triplets) -> None:
    """Raise ValueError for flags that make no sense."""
    least = {"num_refs": 1, "crops": 0, "num_samples_eval": 1, "workers": 0}
    for name, value in least.items():
        if getattr(flags, name) < value:
            raise ValueError(f"--{name}={getattr(flags, name)} must be at least {value}")
    if not 0 <= flags.photometric <= 1:
        raise ValueError(f"--photometric={flags.photometric} must lie in 0 to 1")
    if flags.cache_dir is not None and not flags.crops and flags.fit == "crop":
        raise ValueError(
            "--cache_dir keeps a fixed set of windows: say how many of each picture (--crops 4)"
        )
