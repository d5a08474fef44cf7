# Test a fixer on triplets: predictions, metrics, comparison sheets and the report, in the
# original's folders.
from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from evaluation.fixing import FixingMetrics
from evaluation.fixing_report import (
    choose_shown,
    format_table,
    make_thumbnail,
    summarize,
    write_fixing_report,
    write_metrics_text,
)
from evaluation.metrics import SSIM_WINDOW, Metrics
from evaluation.pictures import save_png
from evaluation.sheet import draw_comparison
from fixers.fixer import Fixer
from fixers.holes import Holes, guess_alpha
from runtime.files import make_writable_folder, write_json
from runtime.lock import locked_folder
from runtime.progress import ProgressBar
from runtime.shards import Shard
from triplets.guides import Guides, Pictures
from triplets.manifest import Triplet
from triplets.pictures import read_image, read_size, size_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folders:
    """Where things go: copies of the inputs, and the predictions with all that is said of them."""

    testset: Path
    predictions: Path

    def input(self, kind: str, key: str) -> Path:
        """The copy of an input: kind is renders, gt or ref."""
        return self.testset / kind / f"{key}.png"

    def prediction(self, key: str) -> Path:
        """A fixed render."""
        return self.predictions / f"{key}.png"


def check_triplets(triplets: Sequence[Triplet], guides: Guides) -> None:
    """Sizes, from the files' headers, before the work begins.

    Raises ValueError naming the entry: a picture that cannot be read or is too small to be
    measured, a render and a truth of different sizes. A reference of another size is said, once.
    """
    others = []
    for t in triplets:
        files = guides.files(t)
        try:
            render, truth, *references = map(read_size, (t.render, t.truth, *files))
        except ValueError as error:
            raise ValueError(f"{t.key}: {error}") from None
        if render != truth:
            raise ValueError(
                f"{t.key}: the render {t.render} is {size_text(render)}, "
                f"the ground truth {t.truth} {size_text(truth)}"
            )
        if min(render) < SSIM_WINDOW:
            raise ValueError(
                f"{t.key}: {t.render} is {size_text(render)} pixels; "
                f"measuring needs at least {SSIM_WINDOW} a side"
            )
        others += [(t.key, reference, render) for reference in references if reference != render]
    if others:
        key, reference, render = others[0]
        log.info(
            "%d references of %d entries are resized, first that of %s from %s to %s",
            *(len(others), len(triplets), key, size_text(reference), size_text(render)),
        )


def predict(
    fixer: Fixer,
    triplets: Sequence[Triplet],
    folders: Folders,
    *,
    guides: Guides,
    holes: Holes = "none",
    at_a_time: int = 1,
    resume: bool = False,
) -> dict[str, float]:
    """Write copies of the inputs and the predictions; seconds a picture by key.

    holes: what renders without alpha are taken for, where the fixer reads it (`guess_alpha`). Up to
    `at_a_time` neighbours of one size go to the fixer together. `resume` keeps predictions that are
    there.
    """
    seconds: dict[str, float] = {}
    waiting: list[tuple[str, Pictures]] = []

    def flush() -> None:
        if not waiting:
            return
        renders = torch.stack([images.render for _, images in waiting])
        references = None
        if waiting[0][1].references is not None:
            references = torch.stack([images.references for _, images in waiting])
        alphas = None
        if waiting[0][1].alpha is not None:
            alphas = torch.stack([images.alpha for _, images in waiting])
        start = time.perf_counter()
        fixed = fixer.fix(renders, references, alphas=alphas).cpu()
        each = (time.perf_counter() - start) / len(waiting)
        for (key, _), picture in zip(waiting, fixed, strict=True):
            save_png(folders.prediction(key), picture)
            seconds[key] = each
            bar.update()
        waiting.clear()

    with ProgressBar(total=len(triplets), desc="fixing", unit="picture") as bar:
        for triplet in triplets:
            key = triplet.key
            if resume and folders.prediction(key).exists():
                bar.update()
                continue
            images = Pictures.read(triplet, guides)
            if guides.alpha and images.alpha is None:
                images = replace(images, alpha=guess_alpha(images.render, holes))
            copies = {"renders": images.render, "gt": images.truth, "ref": images.reference}
            for kind, image in copies.items():
                if image is not None:
                    save_png(folders.input(kind, key), image)
            if waiting and batch_key(waiting[0][1]) != batch_key(images):
                flush()
            waiting.append((key, images))
            if len(waiting) >= at_a_time:
                flush()
        flush()
    return seconds


def batch_key(images: Pictures) -> tuple:
    """What pictures must share to go to the fixer together."""
    references = 0 if images.references is None else len(images.references)
    return images.render.shape, references, images.alpha is None


def measure(
    triplets: Sequence[Triplet],
    folders: Folders,
    judge: FixingMetrics,
    *,
    guides: Guides,
    seconds: Mapping[str, float],
    settings: Mapping[str, object],
    title: str,
) -> dict[str, object]:
    """Metrics of the predictions as written, sheets and report; returns what metrics.json holds.

    Raises FileNotFoundError for predictions that are not there and ValueError for those of another
    size.
    """
    missing = [t.key for t in triplets if not folders.prediction(t.key).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folders.prediction(missing[0])}: no such prediction ({len(missing)} are missing); "
            "leave --gen_img=False out to make them"
        )
    rows: dict[str, dict] = {}
    for triplet in ProgressBar(triplets, "measuring", unit="picture"):
        images = Pictures.read(triplet, guides)
        path = folders.prediction(triplet.key)
        fixed = read_image(path)
        if fixed.shape != images.render.shape:
            sizes = [size_text(image) for image in (fixed, images.render)]
            raise ValueError(f"{path} is {sizes[0]} and the render {sizes[1]}: make it anew")
        row = judge(images.render, fixed, images.truth)
        rows[triplet.key] = row | {"seconds": seconds.get(triplet.key)}
        sheet = draw_comparison(images.render, fixed, images.truth, images.reference, row)
        save_png(folders.predictions / "comparison" / f"{triplet.key}.png", sheet)
    result = summarize(rows, judge)
    if seconds:
        result["mean"]["seconds_per_image"] = sum(seconds.values()) / len(seconds)
    result["settings"] = dict(settings)
    write_json(folders.predictions / "metrics.json", result)
    write_metrics_text(folders.predictions / "metrics.txt", result)
    shown = set(choose_shown(rows))
    pictures = {
        triplet.key: collect_pictures(
            Pictures.read(triplet, guides), folders.prediction(triplet.key)
        )
        for triplet in triplets
        if triplet.key in shown
    }
    report = folders.predictions / "report"
    write_fixing_report(report, result, pictures, title=title, settings=settings)
    return result


def collect_pictures(images: Pictures, fixed: Path) -> dict[str, np.ndarray]:
    """What the report shows of a triplet, uint8 [H,W,3] by name."""
    shown = {"render": images.render, "fixed": read_image(fixed), "reference": images.reference}
    shown["ground truth"] = images.truth
    return {name: make_thumbnail(image) for name, image in shown.items() if image is not None}


def record_settings(predictions: Path, made_with: Mapping[str, object], resume: bool) -> None:
    """Write down how predictions are made, or, where they are to be kept, compare.

    Raises ValueError if those that are there were made otherwise.
    """
    file = predictions / "made_with.json"
    wanted = json.loads(json.dumps(made_with, default=str))
    if resume and any(predictions.glob("*.png")):
        try:
            before = json.loads(file.read_text())
        except (OSError, ValueError):
            before = {}
        other = [k for k in sorted({*before, *wanted}) if before.get(k) != wanted.get(k)]
        if other:
            name = other[0]
            raise ValueError(
                f"the predictions in {predictions} were made with --{name}={before.get(name)}, not "
                f"{wanted.get(name)}: leave --resume out to make them anew, or take another "
                "--testset_path"
            )
    write_json(file, wanted)


def test_fixer(
    triplets: Sequence[Triplet],
    folders: Folders,
    fixer: Fixer | None,
    *,
    device: torch.device | str = "cpu",
    lpips_net: str = "alex",
    backbones: Path | None = None,
    metric_space: str = "rgb",
    guides: Guides,
    holes: Holes = "none",
    at_a_time: int = 1,
    resume: bool = False,
    shard: Shard | None = None,
    made_with: Mapping[str, object],
    settings: Mapping[str, object],
    title: str,
) -> None:
    """Predict (unless the fixer is None), measure, and print the means.

    made_with: what the predictions depend on; `resume` keeps only those made with the same. Of a
    `shard` only its own entries are predicted, and all are measured once all are there. Raises
    ValueError and OSError, in one sentence, for what the user can mend.
    """
    # shards share the folder; predictions that are to be measured may not be there
    alone = shard is None and (fixer is not None or folders.predictions.is_dir())
    remedy = "take another --testset_path"
    with locked_folder(folders.predictions, remedy) if alone else nullcontext():
        resume = resume or shard is not None
        seconds: dict[str, float] = {}
        if fixer is not None:
            make_writable_folder(folders.predictions)
            record_settings(folders.predictions, made_with, resume)
            seconds = predict(
                fixer,
                triplets if shard is None else shard.select(triplets),
                folders,
                guides=guides,
                holes=holes,
                at_a_time=at_a_time,
                resume=resume,
            )
        missing = sum(not folders.prediction(t.key).is_file() for t in triplets)
        if shard is not None and missing:
            log.info("%d predictions of other shards are missing: the last measures all", missing)
            return
        judge = FixingMetrics(Metrics(lpips_net, device, backbones), metric_space)
        result = measure(
            triplets,
            folders,
            judge,
            guides=guides,
            seconds=seconds,
            settings=settings,
            title=title,
        )
        sys.stdout.write(format_table(result) + "\n")
        log.info("predictions, metrics and report/index.html are in %s", folders.predictions)
