# Matches between photos: which pairs are worth it, and their matches on all cores.
from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from runtime.files import write_bytes
from runtime.progress import ProgressBar
from scenes.bindings import pycolmap
from scenes.sfm.similarity import compute_similarity

EXHAUSTIVE_PHOTOS = 100  # up to this number of photos, every pair is matched
SIMILAR = 20  # of more photos, each is matched with so many that look like it
NEXT = 5  # and with so many that follow it by name


def choose_pairs(n: int, similarity: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Pairs i < j of n photos, in name order, that are to be matched.

    similarity: [n, n]; needed for more than EXHAUSTIVE_PHOTOS, of which each photo is matched with
    the most similar ones and with its next ones by name, of which a video's are.
    """
    if n <= EXHAUSTIVE_PHOTOS:
        return [(i, j) for i in range(n) for j in range(i + 1, n)]
    pairs = {(i, i + step) for step in range(1, NEXT + 1) for i in range(n - step)}
    others = np.where(np.eye(n, dtype=bool), -np.inf, similarity)
    for i, similar in enumerate(np.argsort(-others, axis=1, kind="stable")[:, :SIMILAR].tolist()):
        pairs |= {(min(i, j), max(i, j)) for j in similar}
    return sorted(pairs)


def match_photos(database: Path, names: list[str], work: Path, seed: int, progress: bool) -> int:
    """Match pairs of images, verify them, and return their number; matched pairs are left out."""
    pairs = _read_or_choose_pairs(database, names, work / "pairs.json")
    todo = _without_matched(database, names, pairs)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    list_file = work / "pairs.txt"
    batch = max(16, len(pairs) // 100)
    with ProgressBar(
        total=len(pairs), initial=len(pairs) - len(todo), desc="matching", unit="pair",
        disable=not progress, leave=False,
    ) as bar:  # fmt: skip
        for start in range(0, len(todo), batch):
            chunk = todo[start : start + batch]
            list_file.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in chunk))
            pycolmap.match_image_pairs(
                database,
                pairing_options=pycolmap.ImportedPairingOptions(match_list_path=list_file),
                verification_options=verification,
                device=pycolmap.Device.cpu,
            )
            bar.update(len(chunk))
    return len(pairs)


def _read_or_choose_pairs(database: Path, names: list[str], file: Path) -> list[tuple[int, int]]:
    if file.exists():
        return [(i, j) for i, j in json.loads(file.read_text())]
    many = len(names) > EXHAUSTIVE_PHOTOS
    pairs = choose_pairs(len(names), compute_similarity(database, names) if many else None)
    write_bytes(file, json.dumps(pairs).encode())
    return pairs


def _without_matched(
    database: Path, names: list[str], pairs: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    with pycolmap.Database.open(database) as store:
        ids = {image.name: image.image_id for image in store.read_all_images()}
        ids = [ids[name] for name in names]
        return [
            (i, j)
            for i, j in pairs
            if not store.exists_matches(ids[i], ids[j])
            or not store.exists_two_view_geometry(ids[i], ids[j])
        ]
