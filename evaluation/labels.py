# Labels, rounding and sort order of metrics in tables.
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

LOWER_IS_BETTER = ("lpips", "fid", "loss", "error", "rmse", "mae", "mse")
ACRONYMS = ("PSNR", "SSIM", "LPIPS", "FID")


def to_plain(value: object) -> object:
    """NumPy scalars as Python's, and NaN, which cannot be shown or sorted, as None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def format_number(value: object, key: str = "") -> str:
    """A table's cell: PSNR with 2 decimals, SSIM and LPIPS with 3, other floats with 4 digits."""
    if value is None:
        return "n/a"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    key = key.lower()
    sign = "+" if is_gain(key) else ""
    if "psnr" in key:
        return f"{value:{sign}.2f}"
    if "ssim" in key or "lpips" in key:
        return f"{value:{sign}.3f}"
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def format_label(key: str, arrow: bool = True) -> str:
    """A metric's label: "post_psnr" -> "post PSNR (dB) ↑"; other names are unchanged."""
    words = [
        word.upper() if word.upper() in ACRONYMS else word
        for word in key.replace("_", " ").split(" ")
    ]
    name = " ".join(words)
    if "PSNR" in words and "dB" not in name:
        name += " (dB)"
    if not arrow or not set(words) & set(ACRONYMS):
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
    lower = any(w in key.lower() for w in LOWER_IS_BETTER) and not is_gain(key)
    return "descending" if lower else "ascending"


def is_gain(key: str) -> bool:
    """Whether the metric is an improvement, of which more is better."""
    return key.lower().startswith("gain")
