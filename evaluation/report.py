# The HTML report of a reconstruction or a fixer's test: one self-contained file.
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evaluation import labels
from evaluation.choice import choose_views
from evaluation.embed import embed_video, encode_jpeg, encode_png
from evaluation.pictures import ERROR_COLORMAP, ERROR_TOP, draw_error_map, load_colormap
from evaluation.plot import draw_curves
from runtime.files import write_bytes

if TYPE_CHECKING:
    import jinja2

TRUTH = "ground truth"
NOT_PREDICTIONS = {TRUTH, "reference", "confidence"}  # no error map
PICTURE_SIDE = 960  # pixels of a picture's longer side, at most
ERROR_SIDE = 640
FULL_SIZE_PICTURES = 60  # with more below the first views, those shrink: the file stays as large

Cell = str | float | int | None


@dataclass(frozen=True)
class ReportView:
    """One view: its pictures, uint8 [H, W, 3], in the order of the menus, and its metrics.

    The slider starts with the first picture against the one named `against`, or the last one. Every
    picture but those in NOT_PREDICTIONS gets an error map against the ground truth; those of the
    slider's two are shown. A metric of None is shown as n/a.
    """

    name: str
    images: dict[str, np.ndarray]
    metrics: dict[str, float | None]
    against: str = TRUTH


@dataclass(frozen=True)
class Report:
    """The content of a report, in the order of the page.

    views: held-out views, in capture order. The median, the best and the worst by the metric
        `ranked_by` (of which more is better) are shown first.
    summary: rows of the table of means, a way to the same views each. A key "gain_x" (against the
        first row) is not a column of its own but shown in column "x".
    facts: what is true of all rows, such as the number of steps.
    protocol: one line on how the metrics were computed.
    tables: title -> rows, shown next.
    gains: name -> gain of each view, drawn from the smallest to the largest; not of a single view.
    curves: name -> [(step, value), ...]; curves whose names end in the same word share a plot.
    axis: name of the curves' first coordinate.
    video: .mp4 or .webm; embedded below 8 MB, else linked by its relative path.
    notes: sentences for the reader, such as why a number is n/a.
    seconds: part of the run -> the time it took.
    """

    title: str
    subtitle: str
    summary: list[dict[str, Cell]]
    views: list[ReportView]
    curves: dict[str, list[tuple[float, float]]]
    settings: dict[str, object]
    versions: dict[str, str]
    protocol: str
    notes: list[str]
    video: Path | None = None
    axis: str = "step"
    ranked_by: str = "psnr"
    facts: Mapping[str, Cell] = field(default_factory=dict)
    tables: Mapping[str, list[dict[str, Cell]]] = field(default_factory=dict)
    gains: Mapping[str, list[float]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_report(path: Path, report: Report) -> Path:
    """Write the report as `path`/index.html (or as `path`, if it ends in .html); returns the file.

    Pictures, plots, style and script are embedded; nothing is fetched. Pictures are JPEGs of at
    most PICTURE_SIDE pixels a side. Beyond FULL_SIZE_PICTURES they shrink, except those of the
    views shown first.

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
        "label": _label,
        "worst_first": labels.choose_sort_order,
    }
    environment.tests["numeric"] = lambda value: value is None or isinstance(value, (int, float))
    return environment.get_template("report.html.j2")


def _label(key: str, arrow: bool = True) -> str:
    """A label whose unit and arrow stay on the line of the word before."""
    label = labels.format_label(key, arrow)
    return re.sub(r" (?=[(\u2191\u2193])", "\u00a0", label)


def _content(report: Report, folder: Path) -> dict[str, object]:
    """The template's variables besides the report itself."""
    keys = list(dict.fromkeys(key for view in report.views for key in view.metrics))
    rows = [{key: labels.to_plain(view.metrics.get(key)) for key in keys} for view in report.views]
    roles = choose_views([row.get(report.ranked_by) for row in rows])
    roles = {role: i for role, i in roles.items() if report.views[i].images}
    first = set(roles.values())
    count = sum(len(view.images) for i, view in enumerate(report.views) if i not in first)
    shrink = min(1.0, math.sqrt(FULL_SIZE_PICTURES / max(1, count)))
    views = [
        _pictures(view, 1.0 if i in first else shrink) | {"id": f"view-{i + 1}", "metrics": rows[i]}
        for i, view in enumerate(report.views)
    ]
    summary = _plain(report.summary)
    names = dict.fromkeys(key for row in summary for key in row)
    columns = [key for key in names if not labels.is_gain(key)]
    return {
        "views": views,
        "first": {role: views[i] for role, i in roles.items()},
        "first_heading": _name_first_views(roles, report.ranked_by),
        "others": [view for i, view in enumerate(views) if i not in first and view["images"]],
        "metric_keys": keys,
        "summary": summary,
        "columns": columns,
        "missing": any(None in row.values() for row in (*summary, *rows)),
        "facts": {key: labels.to_plain(value) for key, value in report.facts.items()},
        "tables": {title: _plain(rows) for title, rows in report.tables.items() if rows},
        "plots": _plots(report.curves, report.axis),
        "gains": _gains(report.gains),
        "settings": _flat(report.settings),
        "video": embed_video(report.video, folder) if report.video else None,
        "picture_side": round(PICTURE_SIDE * shrink),
        "error_top": ERROR_TOP,
        "error_scale": encode_png(load_colormap(ERROR_COLORMAP)[None].repeat(4, axis=0)),
    }


def _plain(rows: list[dict[str, Cell]]) -> list[dict[str, object]]:
    return [{key: labels.to_plain(value) for key, value in row.items()} for row in rows]


def _name_first_views(roles: Mapping[str, int], ranked_by: str) -> str:
    """A heading such as "Median, best and worst view, by gain in PSNR"."""
    if len(roles) < 2:
        return "The only view"
    *most, last = roles
    metric = labels.find_metric(ranked_by)
    by = metric.label if metric else ranked_by
    gain = "gain in " if labels.is_gain(ranked_by) else ""
    return f"{', '.join(most).capitalize()} and {last} view, by {gain}{by}"


def _pictures(view: ReportView, shrink: float) -> dict[str, object]:
    """The view's pictures and error maps as data URIs, which two the slider starts with, and the
    truth's name if it is not one of them."""
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
    left, right = names[0], view.against if view.against in names[1:] else names[-1]
    height, width = view.images[names[0]].shape[:2] if view.images else (1, 1)
    picture_side, error_side = round(PICTURE_SIDE * shrink), round(ERROR_SIDE * shrink)
    return {
        "name": view.name,
        "ratio": f"{width / height:.5f}",
        "images": {name: encode_jpeg(image, picture_side) for name, image in view.images.items()},
        "errors": {name: encode_jpeg(image, error_side) for name, image in errors.items()},
        "left": left,
        "right": right,
        "truth": TRUTH if truth is not None and TRUTH not in (left, right) else None,
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
    known = {name: sorted(values) for name, values in gains.items() if len(values) > 1}
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
