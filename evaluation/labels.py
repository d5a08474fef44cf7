# Labels, rounding and sort order of metrics in tables.
from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.metrics import METRICS, Metric

# Columns that are not in METRICS
LOWER_IS_BETTER = ("fid", "loss", "error", "rmse", "mae", "mse")
ACRONYMS = {"fid": "FID"}


def find_metric(key: str) -> Metric | None:
    """The metric that a column's key or a curve's name is about: PSNR for "gain_psnr_good"."""
    words = re.findall(r"[a-z0-9]+", key.lower())
    return next((METRICS[word] for word in words if word in METRICS), None)


def to_plain(value: object) -> object:
    """NumPy scalars as Python's, and NaN, which cannot be shown or sorted, as None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def format_number(value: object, key: str = "") -> str:
    """A table's cell: a metric with its decimals, other floats with 4 digits."""
    if value is None:
        return "n/a"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    metric = find_metric(key)
    if metric is not None:
        return f"{value:{'+' if is_gain(key) else ''}.{metric.digits}f}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def format_label(key: str, arrow: bool = True) -> str:
    """A metric's label: "post_psnr" -> "post PSNR (dB) ↑"; other names are unchanged."""
    labels = ACRONYMS | {name: metric.label for name, metric in METRICS.items()}
    words = key.replace("_", " ").split(" ")
    name = " ".join(labels.get(word.lower(), word) for word in words)
    metric = find_metric(key)
    if metric is not None and metric.unit and metric.unit not in name:
        name += f" ({metric.unit})"
    if not arrow or not {word.lower() for word in words} & labels.keys():
        return name
    return f"{name} {'↓' if choose_sort_order(key) == 'descending' else '↑'}"


def format_table(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as a text table whose columns are the keys of all rows."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[format_label(key, arrow=False) for key in keys]]
    cells += [[format_number(row.get(key), key) for key in keys] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = [not isinstance(rows[0].get(key), str) for key in keys]
    lines = [
        "  ".join(
            f"{cell:{'>' if right else '<'}{width}}"
            for cell, right, width in zip(line, numeric, widths, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def choose_sort_order(key: str) -> str:
    """The order that puts the worst value first: "ascending" or "descending"."""
    metric = find_metric(key)
    if metric is not None:
        lower = not metric.higher_is_better
    else:
        lower = any(word in key.lower() for word in LOWER_IS_BETTER)
    return "descending" if lower and not is_gain(key) else "ascending"


def is_gain(key: str) -> bool:
    """Whether the metric is an improvement, of which more is better."""
    return key.lower().startswith("gain")
