# The HTML report of a reconstruction: one file that holds everything and opens from disk.
from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from evaluation.files import write_bytes
from evaluation.metrics import mean
from evaluation.pictures import ERROR_COLORS, ERROR_TOP, error_map
from evaluation.plot import curves_svg

TRUTH = "ground truth"
NOT_PREDICTIONS = {TRUTH, "reference"}  # a reference shows another view: no error map
WIDTH = 960  # pixels a picture is shown at, at most
ERROR_WIDTH = 640
FULL_WIDTH_VIEWS = 40  # with more views pictures shrink, so that the file stays about as large
JPEG_QUALITY = 88
VIDEO_LIMIT = 8_000_000  # bytes; a larger video is linked
VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
LOWER_IS_BETTER = ("lpips", "fid", "loss", "error", "rmse", "mae", "mse")


@dataclass(frozen=True)
class ReportView:
    """One view: its pictures, uint8 [H, W, 3], in the order in which they are offered, and numbers.

    The slider starts with the first picture against "ground truth" (or the last, without one).
    Every picture but "ground truth" and "reference" gets an error map against the ground truth.
    A metric of None is shown as n/a.
    """

    name: str
    images: dict[str, np.ndarray]
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class Report:
    """What `write_report` shows.

    summary: rows of the summary table; the first row's keys are the columns, and its numbers
        stand at the top of the page.
    views: held-out views, in capture order.
    curves: name -> [(step, value), ...]. Curves whose names end in the same word share a plot.
    protocol: one line that says how the numbers were computed.
    notes: sentences for the reader, among them why a number is n/a.
    video: .mp4 or .webm; embedded below 8 MB, else linked by its relative path.
    """

    title: str
    subtitle: str
    summary: list[dict[str, str | float | int | None]]
    views: list[ReportView]
    curves: dict[str, list[tuple[float, float]]]
    settings: dict[str, object]
    versions: dict[str, str]
    protocol: str
    notes: list[str]
    video: Path | None = None


def write_report(path: Path, report: Report) -> Path:
    """Write the report as `path`/index.html (or as `path`, if it ends in .html); return the file.

    Pictures, plots, style and script are inside; nothing is fetched. Pictures are JPEGs at most
    WIDTH pixels wide; with more than FULL_WIDTH_VIEWS views they shrink.

    FileNotFoundError: the video does not exist. ValueError: it is not an .mp4 or .webm, or a
    picture is not uint8 [H, W, 3].
    """
    path = Path(path)
    file = path if path.suffix == ".html" else path / "index.html"
    shrink = min(1.0, math.sqrt(FULL_WIDTH_VIEWS / max(1, len(report.views))))
    views = [_view_for_page(view, shrink) for view in report.views]
    keys = list(dict.fromkeys(key for view in report.views for key in view.metrics))
    rows = [{key: view.metrics.get(key) for key in keys} for view in report.views]
    numbers = [value for row in (*report.summary, *rows) for value in row.values()]
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            columns=list(report.summary[0]) if report.summary else [],
            views=views,
            metric_keys=keys,
            mean=mean(rows),
            plots=_plots(report.curves),
            settings=_flat(report.settings),
            video=_video(report.video, file.parent) if report.video else None,
            missing=None in numbers,
            picture_width=round(WIDTH * shrink),
            error_top=ERROR_TOP,
            error_scale=_data_uri(ERROR_COLORS[None].repeat(4, axis=0), "PNG"),
        )
    )
    return write_bytes(file, page.encode())


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "label": _label, "worst_first": _worst_first}
    environment.tests["number"] = lambda value: value is None or isinstance(value, (int, float))
    return environment


def _view_for_page(view: ReportView, shrink: float) -> dict[str, object]:
    """The view's pictures as data URIs: {"name", "metrics", "ratio", "left", "right", ...}."""
    for name, image in view.images.items():
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"The picture {name!r} of view {view.name!r} is {image.dtype} "
                f"{list(image.shape)}; a report takes uint8 [H, W, 3]."
            )
    names = list(view.images)
    truth = view.images.get(TRUTH)
    errors = {
        name: error_map(image, truth)
        for name, image in view.images.items()
        if truth is not None and name not in NOT_PREDICTIONS and image.shape == truth.shape
    }
    height, width = next(iter(view.images.values())).shape[:2] if names else (1, 1)
    return {
        "name": view.name,
        "metrics": view.metrics,
        "size": (width, height),
        "images": {k: _jpeg(v, WIDTH * shrink) for k, v in view.images.items()},
        "errors": {k: _jpeg(v, ERROR_WIDTH * shrink) for k, v in errors.items()},
        "left": names[0] if names else None,
        "right": TRUTH if truth is not None and names[0] != TRUTH else names[-1] if names else None,
    }


def _jpeg(image: np.ndarray, width: float) -> str:
    picture = Image.fromarray(image)
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((round(width), height), Image.Resampling.LANCZOS)
    return _data_uri(picture, "JPEG", quality=JPEG_QUALITY)


def _data_uri(image: np.ndarray | Image.Image, kind: str, **options: int) -> str:
    buffer = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _video(video: Path, folder: Path) -> dict[str, str | None]:
    """{"name", "data", "link"}: a data URI if the video is small, else a link from `folder`."""
    video = Path(video)
    if not video.is_file():
        raise FileNotFoundError(f"The report's video {video} does not exist.")
    if video.suffix.lower() not in VIDEO_TYPES:
        raise ValueError(f"The report's video {video} is not an .mp4 or .webm.")
    link = quote(Path(os.path.relpath(video.resolve(), folder.resolve())).as_posix())
    if video.stat().st_size >= VIDEO_LIMIT:
        return {"name": video.name, "data": None, "link": link}
    data = base64.b64encode(video.read_bytes()).decode()
    kind = VIDEO_TYPES[video.suffix.lower()]
    return {"name": video.name, "data": f"data:{kind};base64,{data}", "link": link}


def _plots(curves: Mapping[str, list[tuple[float, float]]]) -> list[dict[str, object]]:
    """A plot per quantity, told by the last word of a curve's name ("held-out PSNR")."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, curve in curves.items():
        groups.setdefault(name.split()[-1] if name.split() else "", {})[name] = curve
    plots = []
    for quantity, group in groups.items():
        svg = curves_svg(group, unit="dB" if "psnr" in quantity.lower() else "")
        plots.append({"title": _label(quantity, arrow=False), "names": list(group), "svg": svg})
    return [plot for plot in plots if plot["svg"]]


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level, keys joined by dots, values as text."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _number(value: object, key: str = "") -> str | Markup:
    """A table's cell: PSNR with 2 decimals, SSIM, LPIPS with 3, other floats 4 digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Markup('<span class="na">n/a</span>')
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f") if abs(value) >= 10_000 else str(value)
    key = key.lower()
    if "psnr" in key:
        return f"{value:.2f}"
    if "ssim" in key or "lpips" in key:
        return f"{value:.3f}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"


def _label(key: str, arrow: bool = True) -> str:
    """A metric's name for people: "post_psnr" -> "post PSNR (dB) ↑"."""
    words = [
        word.upper() if word.lower() in ("psnr", "ssim", "lpips", "fid") else word
        for word in str(key).replace("_", " ").split(" ")
    ]
    name = " ".join(words)
    if "PSNR" in words and "dB" not in name:
        name += " (dB)"
    known = arrow and any(word in words for word in ("PSNR", "SSIM", "LPIPS", "FID"))
    return f"{name} {'↓' if _worst_first(key) == 'descending' else '↑'}" if known else name


def _worst_first(key: str) -> str:
    """The sort order that puts the worst view on top."""
    lower = any(word in key.lower() for word in LOWER_IS_BETTER)
    return "descending" if lower else "ascending"
