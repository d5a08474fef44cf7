# Test a fixer on triplets: predictions, metrics, comparison sheets and the report, in the
# original's folders.
from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from evaluation.files import atomic_path
from evaluation.fixing import GOOD, FixingMetrics, sheet
from evaluation.metrics import Metrics, mean, write_json
from evaluation.pictures import save_png, to_uint8
from evaluation.report import Report, ReportView, write_report
from fixers.call import Fixer, fitted
from fixers.registry import load
from fixers.sources import read_image
from models import checkpoints
from scenes.files import writable_folder

log = logging.getLogger(__name__)

NOT_COMPUTED = ("DISTS", "NIQE", "CLIP-IQA", "MUSIQ", "MANIQA", "FID")
DEFAULT_VQVAE = Path("checkpoints/VQVAE.pth")
REPORT_VIEWS = 60
REPORT_SIDE = 960


class Triplet(Protocol):
    """What is needed of an entry."""

    key: str
    render: Path
    truth: Path
    reference: Path | None


@dataclass(frozen=True)
class Folders:
    """Where things go: copies of the inputs, and the predictions with all that is said of them."""

    testset: Path
    predictions: Path

    def input(self, kind: str, key: str) -> Path:
        return self.testset / kind / f"{key}.png"

    def prediction(self, key: str) -> Path:
        return self.predictions / f"{key}.png"


@dataclass(frozen=True)
class Images:
    """A triplet's pictures, [H,W,3] in [0,1]; the reference at the render's size."""

    render: Tensor
    truth: Tensor
    reference: Tensor | None


def read_triplet(triplet: Triplet, use_reference: bool) -> Images:
    """Raises ValueError if render and truth differ in size or a reference is asked for and
    missing."""
    render, truth = read_image(triplet.render), read_image(triplet.truth)
    if render.shape != truth.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (render, truth)]
        raise ValueError(
            f"{triplet.key}: the render {triplet.render} is {sizes[0]}, "
            f"the ground truth {triplet.truth} {sizes[1]}"
        )
    reference = None
    if use_reference:
        if triplet.reference is None:
            raise ValueError(f"{triplet.key} has no reference: give it one, or --use_ref=False")
        reference = fitted(read_image(triplet.reference)[None, None], *render.shape[:2])[0, 0]
    return Images(render, truth, reference)


def check_sizes(triplets: Sequence[Triplet]) -> None:
    """Sizes of all renders and truths, from the files' headers, before the work begins."""
    for triplet in triplets:
        try:
            sizes = [Image.open(path).size for path in (triplet.render, triplet.truth)]
        except OSError:
            continue  # reading it will tell why
        if sizes[0] != sizes[1]:
            read_triplet(triplet, use_reference=False)


def predict(
    fixer: Fixer,
    triplets: Sequence[Triplet],
    folders: Folders,
    *,
    use_reference: bool,
    at_a_time: int = 1,
    resume: bool = False,
) -> dict[str, float]:
    """Write copies of the inputs and the predictions; seconds a picture by key.

    Up to `at_a_time` neighbours of one size go to the fixer together. `resume` keeps predictions
    that are there.
    """
    seconds: dict[str, float] = {}
    waiting: list[tuple[Triplet, Images]] = []

    def flush() -> None:
        if not waiting:
            return
        renders = torch.stack([images.render for _, images in waiting])
        guides = None
        if use_reference:
            guides = torch.stack([images.reference for _, images in waiting])[:, None]
        start = time.perf_counter()
        fixed = fixer.fix(renders, guides).cpu()
        each = (time.perf_counter() - start) / len(waiting)
        for (triplet, _), picture in zip(waiting, fixed, strict=True):
            save_png(folders.prediction(triplet.key), picture)
            seconds[triplet.key] = each
            bar.update()
        waiting.clear()

    with tqdm(total=len(triplets), desc="fixing", unit="picture") as bar:
        for triplet in triplets:
            images = read_triplet(triplet, use_reference)
            save_png(folders.input("renders", triplet.key), images.render)
            save_png(folders.input("gt", triplet.key), images.truth)
            if images.reference is not None:
                save_png(folders.input("ref", triplet.key), images.reference)
            if resume and folders.prediction(triplet.key).exists():
                bar.update()
                continue
            if waiting and waiting[0][1].render.shape != images.render.shape:
                flush()
            waiting.append((triplet, images))
            if len(waiting) >= at_a_time:
                flush()
        flush()
    return seconds


def measure(
    triplets: Sequence[Triplet],
    folders: Folders,
    *,
    use_reference: bool,
    space: str,
    lpips_net: str,
    device: str | None,
    seconds: dict[str, float],
    settings: dict[str, object],
    title: str,
) -> dict:
    """Metrics of the predictions as written, sheets and report; returns what metrics.json holds."""
    missing = [t.key for t in triplets if not folders.prediction(t.key).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folders.prediction(missing[0])}: no such prediction ({len(missing)} are missing); "
            "leave --gen_img=False out to make them"
        )
    metrics = Metrics(lpips_net, device or "cpu")
    judge = FixingMetrics(metrics, space)
    rows: dict[str, dict] = {}
    views: list[ReportView] = []
    for triplet in tqdm(triplets, "measuring", unit="picture"):
        images = read_triplet(triplet, use_reference)
        fixed = read_image(folders.prediction(triplet.key))
        if fixed.shape != images.render.shape:
            raise ValueError(f"{folders.prediction(triplet.key)} has not the render's size")
        try:
            rows[triplet.key] = judge(images.render, fixed, images.truth)
        except ValueError as error:
            raise ValueError(f"{triplet.key}: {error}") from None
        pictures = {"render": images.render}
        if images.reference is not None:
            pictures["reference"] = images.reference
        pictures["fixed"] = fixed
        picture = sheet(pictures, images.truth, ("render", "fixed"))
        save_png(folders.predictions / "comparison" / f"{triplet.key}.png", picture)
        if len(views) < REPORT_VIEWS:
            shown = {"fixed": fixed, "render": images.render, "ground truth": images.truth}
            if images.reference is not None:
                shown["reference"] = images.reference
            small = {name: smaller(to_uint8(image)) for name, image in shown.items()}
            views.append(ReportView(triplet.key, small, rows[triplet.key]))
    # good and bad pixels are pooled, so that a picture without bad ones does not count as none
    plain = [
        {k: v for k, v in row.items() if not k.endswith(("_good", "_bad"))} for row in rows.values()
    ]
    means = mean(plain) | judge.pooled()
    if seconds:
        means["seconds_per_image"] = sum(seconds.values()) / len(seconds)
    result = {
        "images": len(rows),
        "metric_space": space,
        "mean": means,
        "better": sum(row["gain_psnr"] > 0 for row in rows.values()),
        "per_image": {k: row | {"seconds": seconds.get(k)} for k, row in rows.items()},
        "lpips": metrics.lpips_reason or metrics.lpips_net,
        "good_pixel_threshold": GOOD,
    }
    write_json(folders.predictions / "metrics.json", result)
    write_text(folders.predictions / "metrics.txt", result)
    report(folders, result, views, metrics, settings, title)
    return result


def write_text(path: Path, result: dict) -> None:
    """metrics.txt under the original's names, and the unfixed render's numbers after."""
    means = result["mean"]

    def shown(name: str) -> str:
        return f"n/a ({result['lpips']})" if means[name] is None else f"{means[name]:.4f}"

    lines = [f"eval_img_num: {result['images']}"]
    names = ("psnr", "ssim", "lpips")
    lines += [f"{name.upper()}: {shown(name)}" for name in names]
    lines += [f"{name}: n/a (not computed here)" for name in NOT_COMPUTED]
    lines += [f"render {name.upper()}: {shown('render_' + name)}" for name in names]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def report(
    folders: Folders,
    result: dict,
    views: list[ReportView],
    metrics: Metrics,
    settings: dict[str, object],
    title: str,
) -> None:
    """The HTML report beside the predictions."""
    means = result["mean"]
    names = ("psnr", "ssim", "lpips", "psnr_good", "psnr_bad")
    summary = [
        {"images": "fixed", **{name: means[name] for name in names}},
        {"images": "unfixed render", **{name: means[f"render_{name}"] for name in names}},
    ]
    notes = [
        f"PSNR rose on {result['better']} of {result['images']} images.",
        f"good and bad: pixels where the render's RMS error over RGB is at most {GOOD}, or more; "
        f"{100 * means['good_pixels']:.0f} % are good.",
        "Numbers come from the 8-bit pictures as written.",
    ]
    if result["metric_space"] == "y":
        notes.append("PSNR and SSIM are on luma (BT.601 studio swing).")
    if metrics.lpips_reason:
        notes.append(f"LPIPS is n/a: {metrics.lpips_reason}")
    if len(views) < result["images"]:
        notes.append(f"The first {len(views)} of {result['images']} images are shown.")
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    write_report(
        folders.predictions / "report",
        Report(
            title=title,
            subtitle=f"{result['images']} images with ground truth",
            summary=summary,
            views=views,
            curves={},
            settings={k: str(v) for k, v in settings.items()},
            versions=versions,
            protocol=metrics.protocol.format(resolution="of each image"),
            notes=notes,
        ),
    )


def smaller(image: np.ndarray) -> np.ndarray:
    """uint8 [H,W,3] with a longer side of at most REPORT_SIDE."""
    picture = Image.fromarray(image)
    picture.thumbnail((REPORT_SIDE, REPORT_SIDE))
    return np.asarray(picture)


def table(result: dict) -> str:
    """The means for the terminal."""
    means = result["mean"]
    lines = [f"{'':<16}{'PSNR':>8}{'SSIM':>8}{'LPIPS':>8}{'good px':>9}{'bad px':>8}"]
    for name, prefix in (("unfixed render", "render_"), ("fixed", "")):
        cells = [means[prefix + key] for key in ("psnr", "ssim", "lpips", "psnr_good", "psnr_bad")]
        formats = ("8.2f", "8.3f", "8.3f", "9.2f", "8.2f")
        shown = [
            f"{'n/a':>{f.split('.')[0]}}" if v is None else f"{v:{f}}"
            for v, f in zip(cells, formats, strict=True)
        ]
        lines.append(f"{name:<16}{''.join(shown)}")
    lines.append(f"PSNR rose on {result['better']} of {result['images']} images")
    return "\n".join(lines)


def run(flags, triplets: Sequence[Triplet], *, mode: str, suffix: str) -> None:
    """A test script's work: `flags` are training.flags.TestFlags; the means are printed.

    Raises ValueError and OSError, in one sentence, for what the user can mend.
    """
    if not triplets:
        raise ValueError(f"--eval_img_num={flags.eval_img_num} leaves no entries")
    for name in ("batch_size",):
        if getattr(flags, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(flags, name)}")
    if flags.use_ref and all(t.reference is None for t in triplets):
        raise ValueError(f"{flags.json_path} has no references: give them, or --use_ref=False")
    check_sizes(triplets)
    weights, stamp = flags.fixer, "0_0"
    if flags.fixer == "gsvar":
        weights, stamp = origin(flags)
    folder = f"{weights}{suffix}"
    folders = Folders(flags.testset_path, flags.testset_path / "VARPrediction" / folder / stamp)
    seconds: dict[str, float] = {}
    if flags.gen_img:
        fixer = load_tested(flags, mode)
        writable_folder(folders.predictions)
        at_a_time = flags.batch_size if mode == "resize" else 1
        seconds = predict(
            fixer,
            triplets,
            folders,
            use_reference=flags.use_ref,
            at_a_time=at_a_time,
            resume=flags.resume,
        )
    result = measure(
        triplets,
        folders,
        use_reference=flags.use_ref,
        space=flags.metric_space,
        lpips_net=flags.lpips_net,
        device=flags.device,
        seconds=seconds,
        settings=vars(flags) | {"mode": mode},
        title=f"{weights} on {Path(str(flags.json_path)).name}",
    )
    sys.stdout.write(table(result) + "\n")
    log.info("predictions, metrics and report/index.html are in %s", folders.predictions)


def origin(flags) -> tuple[str, str]:
    """The experiment's name and <epoch>_<iter> of the weights, as the original names its
    folders."""
    told = checkpoints.inspect(flags.var_test_path)
    epoch = told.get("epoch") if flags.epoch is None else flags.epoch
    iteration = told.get("iteration") if flags.iter is None else flags.iter
    name = flags.var_test_path.resolve().parent.name
    return name, f"{epoch or 0}_{iteration or 0}"


def load_tested(flags, mode: str) -> Fixer:
    """The fixer that the flags name."""
    if flags.fixer != "gsvar":
        return load(flags.fixer)
    vqvae = flags.vae_model_path
    if vqvae is None and DEFAULT_VQVAE.is_file() and not has_vqvae(flags.var_test_path):
        vqvae = DEFAULT_VQVAE
    return load(
        "gsvar",
        checkpoint=flags.var_test_path,
        vqvae=vqvae,
        base=flags.var_pretrain_path if flags.use_lora else None,
        depth=flags.depth,
        mode=mode,
        bridge=flags.use_bridge,
        colour=flags.colour,
        refiner=flags.refiner,
        refiner_steps=flags.refiner_steps,
        batch_size=flags.batch_size,
        seed=flags.seed,
        device=flags.device,
        dtype=flags.dtype,
    )


def has_vqvae(path: Path) -> bool:
    """Whether a checkpoint brings its own VQ-VAE."""
    parts = checkpoints.inspect(path)["parts"]
    return any(part.startswith(("vae_local", "vqvae")) for part in parts)
