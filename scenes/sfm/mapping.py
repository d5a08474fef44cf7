# Incremental mapping: from matches to poses and points, with a snapshot from which to continue.
from __future__ import annotations

import shutil
import time
from pathlib import Path

from runtime.files import replace_folder
from runtime.progress import ProgressBar
from scenes.bindings import pycolmap

SNAPSHOT_SECONDS = 20.0  # between snapshots


def map_photos(
    database: Path, copies: Path, work: Path, n: int, seed: int, progress: bool
) -> pycolmap.Reconstruction | None:
    """The largest model of n photos, or None; continues from the snapshot of a stopped mapping."""
    snapshot = work / "snapshot"
    model = None
    if snapshot.is_dir():
        model = _map(database, copies, snapshot, n, seed, progress, resume=True)
    if model is None or model.num_reg_images() < n / 2:  # another part may be larger
        models = (model, _map(database, copies, snapshot, n, seed, progress, resume=False))
        model = max(filter(None, models), key=lambda m: m.num_reg_images(), default=None)
    return model


def _map(
    database: Path, copies: Path, snapshot: Path, n: int, seed: int, progress: bool, resume: bool
) -> pycolmap.Reconstruction | None:
    options = pycolmap.IncrementalPipelineOptions(min_model_size=3, random_seed=seed)
    options.mapper.random_seed = options.triangulation.random_seed = seed
    options.image_path = copies
    manager = pycolmap.ReconstructionManager()
    largest = 0
    if resume:
        manager.read(snapshot)
        largest = manager.get(0).num_reg_images()
    saved = time.monotonic()

    with (
        pycolmap.Database.open(database) as store,
        ProgressBar(
            total=n, initial=largest, desc="mapping", unit="photo", disable=not progress,
            leave=False,
        ) as bar,
    ):  # fmt: skip

        def show_and_save() -> None:
            nonlocal largest, saved
            model = manager.get(manager.size() - 1)
            posed = model.num_reg_images()
            bar.update(posed - bar.n)
            if posed > largest and time.monotonic() > saved + SNAPSHOT_SECONDS:
                _save(model, snapshot)
                largest, saved = posed, time.monotonic()

        pipeline = pycolmap.IncrementalPipeline(options, store, manager)
        for event in ("INITIAL_IMAGE_PAIR_REG_CALLBACK", "NEXT_IMAGE_REG_CALLBACK"):
            callback = getattr(pycolmap.IncrementalPipelineCallback, event)
            pipeline.add_callback(callback, show_and_save)
        pipeline.run()
    models = [manager.get(i) for i in range(manager.size())]
    return max(models, key=lambda model: model.num_reg_images(), default=None)


def _save(model: pycolmap.Reconstruction, snapshot: Path) -> None:
    """Write the model so that the snapshot is whole, whenever the process is killed."""
    new = snapshot.with_name(f"{snapshot.name}-new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    model.write_binary(new)
    replace_folder(new, snapshot)
