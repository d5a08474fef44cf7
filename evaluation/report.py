# The HTML report of a reconstruction or a fixer's test: one self-contained file.
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation import labels
from evaluation.embed import embed_video, encode_jpeg, encode_png
from evaluation.metrics import average
from evaluation.pictures import ERROR_COLORMAP, ERROR_TOP, draw_error_map, load_colormap
from evaluation.plot import draw_curves
from runtime.files import write_bytes

if TYPE_CHECKING:
    import jinja2

TRUTH = "ground truth"
NOT_PREDICTIONS = {TRUTH, "reference", "confidence"}  # no error map
PICTURE_SIDE = 960  # pixels of a picture's longer side, at most
ERROR_SIDE = 640
FULL_SIZE_PICTURES = 100  # with more, all shrink, so that the file stays about as large


@dataclass(frozen=True)
class ReportView:
    """One view: its pictures, uint8 [H, W, 3], in the order of the menus, and its metrics.

    The slider starts with the first picture against the one named `against`, or the last one. Every
    picture but those in NOT_PREDICTIONS gets an error map against the ground truth. A metric of
    None is shown as n/a.
    """

    name: str
    images: dict[str, np.ndarray]
    metrics: dict[str, float | None]
    against: str = TRUTH


@dataclass(frozen=True)
class Report:
    """The content of a report.

    summary: rows of the summary table; the first row's keys are the columns, and its numbers are
        the headline.
    views: held-out views, in capture order.
    curves: name -> [(step, value), ...]; curves whose names end in the same word share a plot.
    axis: name of the curves' first coordinate.
    protocol: one line on how the metrics were computed.
    notes: sentences for the reader, such as why a number is n/a.
    tables: title -> rows, shown after the summary.
    gains: name -> gain of each view, drawn from the smallest to the largest.
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
    axis: str = "step"
    tables: Mapping[str, list[dict[str, str | float | int | None]]] = field(default_factory=dict)
    gains: Mapping[str, list[float]] = field(default_factory=dict)


def write_report(path: Path, report: Report) -> Path:
    """Write the report as `path`/index.html (or as `path`, if it ends in .html); returns the file.

    Pictures, plots, style and script are embedded; nothing is fetched. Pictures are JPEGs of at
    most PICTURE_SIDE pixels a side; beyond FULL_SIZE_PICTURES of them they shrink.

    Raises FileNotFoundError if the video does not exist, ValueError if it is not an .mp4 or .webm
    or a picture is not uint8 [H, W, 3].
    """
    path = Path(path)
    file = path if path.suffix == ".html" else path / "index.html"
    page = _template().render(report=report, **_content(report, file.parent))
    return write_bytes(file, page.encode())


def _template() -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": labels.format_number,
        "label": labels.format_label,
        "worst_first": labels.choose_sort_order,
    }
    environment.tests["numeric"] = lambda value: value is None or isinstance(value, (int, float))
    return environment.get_template("report.html.j2")


def _content(report: Report, folder: Path) -> dict[str, object]:
    """The template's variables besides the report itself."""
    count = sum(len(view.images) for view in report.views)
    shrink = min(1.0, math.sqrt(FULL_SIZE_PICTURES / max(1, count)))
    views = [_pictures(view, shrink) for view in report.views]
    summary = [
        {key: labels.to_plain(value) for key, value in row.items()} for row in report.summary
    ]
    keys = list(dict.fromkeys(key for view in report.views for key in view.metrics))
    rows = [{key: labels.to_plain(view.metrics.get(key)) for key in keys} for view in report.views]
    first = summary[0] if summary else {}
    return {
        "summary": summary,
        "headline": [value for value in first.values() if isinstance(value, str)],
        "views": [view | {"metrics": row} for view, row in zip(views, rows, strict=True)],
        "metric_keys": keys,
        "mean": average(rows),
        "missing": any(None in row.values() for row in (*summary, *rows)),
        "plots": _plots(report.curves, report.axis),
        "tables": {
            title: [{key: labels.to_plain(value) for key, value in row.items()} for row in rows]
            for title, rows in report.tables.items()
            if rows
        },
        "gains": _gains(report.gains),
        "settings": _flat(report.settings),
        "video": embed_video(report.video, folder) if report.video else None,
        "picture_side": round(PICTURE_SIDE * shrink),
        "error_top": ERROR_TOP,
        "error_scale": encode_png(load_colormap(ERROR_COLORMAP)[None].repeat(4, axis=0)),
    }


def _pictures(view: ReportView, shrink: float) -> dict[str, object]:
    """The view's pictures and error maps as data URIs, and which two the slider starts with."""
    for name, image in view.images.items():
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                f"The picture {name!r} of view {view.name!r} is {image.dtype} "
                f"{list(image.shape)}; a report takes uint8 [H, W, 3]."
            )
    names = list(view.images) or [None]
    truth = view.images.get(TRUTH)
    errors = {
        name: draw_error_map(image, truth)
        for name, image in view.images.items()
        if truth is not None and name not in NOT_PREDICTIONS and image.shape == truth.shape
    }
    height, width = view.images[names[0]].shape[:2] if view.images else (1, 1)
    picture_side, error_side = round(PICTURE_SIDE * shrink), round(ERROR_SIDE * shrink)
    return {
        "name": view.name,
        "ratio": f"{width / height:.5f}",
        "images": {name: encode_jpeg(image, picture_side) for name, image in view.images.items()},
        "errors": {name: encode_jpeg(image, error_side) for name, image in errors.items()},
        "left": names[0],
        "right": view.against if view.against in names[1:] else names[-1],
    }


def _plots(curves: Mapping[str, list[tuple[float, float]]], axis: str) -> list[dict[str, object]]:
    """A plot per quantity, which is the last word of a curve's name ("held-out PSNR")."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, curve in curves.items():
        groups.setdefault(name.rsplit(" ", 1)[-1], {})[name] = curve
    plots = []
    for quantity, group in groups.items():
        metric = labels.find_metric(quantity)
        svg = draw_curves(group, metric.unit if metric else "", axis)
        title = labels.format_label(quantity, arrow=False)
        plots.append({"title": title, "names": list(group), "svg": svg})
    return [plot for plot in plots if plot["svg"]]


def _gains(gains: Mapping[str, list[float]]) -> dict[str, object] | None:
    """A plot of the sorted gains, and how many views became worse."""
    known = {name: sorted(values) for name, values in gains.items() if values}
    if not known:
        return None
    curves = {name: list(enumerate(values, 1)) for name, values in known.items()}
    worse = {name: (sum(v < 0 for v in values), len(values)) for name, values in known.items()}
    return {
        "svg": draw_curves(curves, "dB", "view, from the least gain to the most"),
        "names": list(known),
        "worse": worse,
    }


def _flat(settings: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level, keys joined by dots, values as text."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
