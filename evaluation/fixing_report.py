# The outputs of a fixer's test: metrics.json, metrics.txt, the HTML report, a text table.
from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evaluation.choice import choose_views
from evaluation.fixing import GOOD, FixingMetrics
from evaluation.labels import format_number
from evaluation.metrics import METRICS, average
from evaluation.pictures import to_uint8
from evaluation.report import Report, ReportView, write_report
from runtime.files import write_bytes

NOT_COMPUTED = ("DISTS", "NIQE", "CLIP-IQA", "MUSIQ", "MANIQA", "FID")  # GS-VAR computes these
PICTURES = 60  # images from the first on with pictures in the report; all have their metrics
SIDE = 960  # pixels of a picture's longer side, at most


def summarize(
    rows: Mapping[str, Mapping[str, float | None]], judge: FixingMetrics
) -> dict[str, object]:
    """The content of metrics.json, from FixingMetrics' numbers by key.

    Means are over images; good and bad pixels are pooled over all images instead, so that an image
    without bad pixels does not matter.
    """
    pooled = judge.pool()
    plain = [{k: v for k, v in row.items() if k not in pooled} for row in rows.values()]
    return {
        "images": len(rows),
        "metric_space": judge.space,
        "protocol": judge.protocol,
        "lpips": judge.metrics.lpips_reason or judge.metrics.lpips_net,
        "not_computed": NOT_COMPUTED,
        "good_pixel_threshold": GOOD,
        "better": sum(row["gain_psnr"] > 0 for row in rows.values()),
        "mean": average(plain) | pooled,
        "per_image": dict(rows),
    }


def write_metrics_text(path: Path, result: Mapping) -> None:
    """Write metrics.txt: the original's names, then unfixed renders and pixel qualities."""
    means = result["mean"]

    def line(title: str, name: str) -> str:
        value = means[name]
        return f"{title}: n/a" if value is None else f"{title}: {value:.4f}"

    lines = [f"eval_img_num: {result['images']}"]
    shown = {name: metric.label for name, metric in METRICS.items() if name in means}
    for name, label in shown.items():
        why = f" ({result['lpips']})" if "lpips" in name and means[name] is None else ""
        lines.append(line(label, name) + why)
    lines += [f"{name}: n/a (not computed here)" for name in NOT_COMPUTED]
    for name, label in shown.items():
        lines.append(line(f"{label} of the unfixed render", f"render_{name}"))
    for where in ("good", "bad"):
        title = f"PSNR where the render was {where}"
        lines.append(line(title, f"psnr_{where}"))
        lines.append(line(f"{title}, unfixed", f"render_psnr_{where}"))
    lines.append(f"protocol: {result['protocol']}")
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def format_table(result: Mapping) -> str:
    """The mean metrics as a text table."""
    means = result["mean"]
    columns = {
        name: (metric.label, max(8, len(metric.label) + 2))
        for name, metric in METRICS.items()
        if name in means
    }
    columns |= {"psnr_good": ("good px", 9), "psnr_bad": ("bad px", 8)}
    lines = [" " * 16 + "".join(f"{title:>{width}}" for title, width in columns.values())]
    for who, prefix in (("unfixed render", "render_"), ("fixed", "")):
        cells = [
            f"{format_number(means[prefix + key], key):>{width}}"
            for key, (_, width) in columns.items()
        ]
        lines.append(f"{who:<16}{''.join(cells)}")
    lines.append(f"PSNR rose on {result['better']} of {result['images']} images")
    return "\n".join(lines)


def write_fixing_report(
    path: Path,
    result: Mapping,
    pictures: Mapping[str, Mapping[str, np.ndarray]],
    *,
    title: str,
    settings: Mapping[str, object],
) -> Path:
    """Write the HTML report of a result of `summarize`; returns the file.

    pictures: by key and name, uint8 [H,W,3], of some images, the render first; settings: shown as a
    table.
    """
    means, rows = result["mean"], result["per_image"]
    seconds = means.get("seconds_per_image")
    first = next(iter(rows.values()))
    names = [name for name in METRICS if first.get(name) is not None]
    columns = (*(name for name in METRICS if name in means), "psnr_good", "psnr_bad")
    shown = [key for name in names for key in (name, f"gain_{name}")]
    shown += ["gain_psnr_good", "gain_psnr_bad"]
    notes = [
        f"PSNR good and PSNR bad: over the pixels where the render's RMS error over RGB is at most "
        f"{GOOD}, and over the others, of all images. A fixer should mend the bad ones and leave "
        "the good ones alone.",
    ]
    if means["lpips"] is None:
        notes.append(f"LPIPS is n/a: {result['lpips']}")
    notes.append(f"Not computed: {', '.join(NOT_COMPUTED)}.")
    if len(pictures) < len(rows):
        notes.append(f"{len(pictures)} of {len(rows)} images are shown; comparison/ has them all.")
    gains = {f"gain_{name}": means[f"gain_{name}"] for name in columns}
    report = Report(
        title=title,
        subtitle=f"{result['images']} images with ground truth",
        summary=[
            {"": "unfixed render", **{name: means[f"render_{name}"] for name in columns}},
            {"": "fixed", **{name: means[name] for name in columns}, **gains},
        ],
        facts={
            "PSNR rose on": f"{result['better']} images",
            "good pixels": f"{100 * means['good_pixels']:.0f} %",
            **({} if seconds is None else {"seconds per image": seconds}),
        },
        views=[
            ReportView(
                key, dict(pictures.get(key, {})), {name: row[name] for name in shown}, "fixed"
            )
            for key, row in rows.items()
        ],
        ranked_by="gain_psnr",
        curves=rank_curves(rows, names),
        axis="image, the worst render first",
        settings=dict(settings),
        versions={"python": platform.python_version(), "torch": torch.__version__},
        protocol=result["protocol"],
        notes=notes,
    )
    return write_report(path, report)


def choose_shown(rows: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Keys of the images to be shown: the median, the best, the worst and the first PICTURES."""
    keys = list(rows)
    roles = choose_views([row["gain_psnr"] for row in rows.values()])
    return [keys[i] for i in sorted({*roles.values(), *range(min(PICTURES, len(keys)))})]


def rank_curves(
    rows: Mapping[str, Mapping[str, float | None]], names: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Metrics of fixed and unfixed renders over the images, ordered by the render's PSNR."""
    if len(rows) < 2:
        return {}
    ordered = sorted(rows.values(), key=lambda row: row["render_psnr"])
    return {
        f"{who} {METRICS[name].label}": [
            (i, row[prefix + name]) for i, row in enumerate(ordered, 1)
        ]
        for name in names
        for who, prefix in (("fixed", ""), ("unfixed", "render_"))
    }


def make_thumbnail(image: torch.Tensor) -> np.ndarray:
    """A picture [H,W,3] as uint8 for the report, of at most SIDE pixels a side."""
    picture = Image.fromarray(to_uint8(image))
    picture.thumbnail((SIDE, SIDE))
    return np.asarray(picture)
