# The comparison sheet of a fixed render: the pictures above, their errors below.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from evaluation.fixing import find_good_pixels
from evaluation.labels import format_number
from evaluation.metrics import METRICS
from evaluation.pictures import (
    ERROR_COLORMAP,
    ERROR_TOP,
    draw_error_map,
    load_colormap,
    to_uint8,
)

GAIN_TOP = 0.1  # change of the error at the ends of the colour scale
SIDE = 960  # pixels of a picture's longer side on the sheet, at most
LEAST = 320  # width in pixels that captions need; smaller pictures are enlarged
GAIN_COLORMAP = "RdBu"  # red for worse, white for equal, blue for better
GAP = 6


@dataclass(frozen=True)
class Cell:
    """A picture, uint8 [H,W,3], and its caption.

    scale: a colour scale, uint8 [256,3], beside the caption; ends: the labels of its ends.
    """

    image: np.ndarray
    caption: str
    scale: np.ndarray | None = None
    ends: tuple[str, str] = ("", "")


def draw_gain_map(render: Tensor, fixed: Tensor, truth: Tensor) -> np.ndarray:
    """Where fixing helped (blue) or hurt (red): decrease of the absolute error, mean over RGB.

    Images [H,W,3] in [0,1]; uint8 [H,W,3], white for no change, full colour at GAIN_TOP.
    """
    fall = ((render - truth).abs() - (fixed - truth).abs()).mean(-1)
    return load_colormap(GAIN_COLORMAP)[to_uint8((fall / GAIN_TOP + 1) / 2)]


def draw_comparison(
    render: Tensor,
    fixed: Tensor,
    truth: Tensor,
    reference: Tensor | None,
    numbers: Mapping[str, float | None],
) -> np.ndarray:
    """The sheet, uint8 [H',W',3], of images [H,W,3] in [0,1] and their metrics (see FixingMetrics).

    Above: render, fixed, ground truth, reference. Below: the errors of the render and of the fixed
    one, where fixing helped, and, under the reference, which pixels of the render were good.
    """
    error_scale = (load_colormap(ERROR_COLORMAP), ("0", f"{ERROR_TOP}"))
    columns = [
        (
            Cell(to_uint8(render), f"render: {format_numbers(numbers, 'render_')}"),
            Cell(draw_error_map(render, truth), "error of the render", *error_scale),
        ),
        (
            Cell(to_uint8(fixed), f"fixed: {format_numbers(numbers, '')}"),
            Cell(draw_error_map(fixed, truth), "error of the fixed", *error_scale),
        ),
        (
            Cell(to_uint8(truth), "ground truth"),
            Cell(
                draw_gain_map(render, fixed, truth),
                f"gain: {format_number(numbers['gain_psnr'], 'gain_psnr')} dB",
                load_colormap(GAIN_COLORMAP),
                (f"worse by {GAIN_TOP}", f"better by {GAIN_TOP}"),
            ),
        ),
    ]
    if reference is not None:
        good = find_good_pixels(render, truth).cpu().numpy()
        dimmed = np.where(good[..., None], to_uint8(render), 255)
        title = f"good pixels of the render ({100 * good.mean():.0f} %); bad ones are white"
        columns.append((Cell(to_uint8(reference), "reference"), Cell(dimmed, title)))
    return draw_columns(columns)


def format_numbers(numbers: Mapping[str, float | None], prefix: str) -> str:
    """PSNR, and the other metrics that are computed, as a short text."""
    others = [n for n in METRICS if n != "psnr" and numbers.get(prefix + n) is not None]
    words = [f"{METRICS[n].label} {format_number(numbers[prefix + n], n)}" for n in others]
    return ", ".join([f"{format_number(numbers[prefix + 'psnr'], 'psnr')} dB", *words])


def draw_columns(columns: list[tuple[Cell, ...]]) -> np.ndarray:
    """Columns of cells of one size, shrunk to SIDE or enlarged by a whole number."""
    height, width = columns[0][0].image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if max(height, width) < SIDE:
        scale = min(-(-LEAST // width), SIDE // max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    line = max(16, width // 32)
    step = width + GAP, height + line + GAP
    size = len(columns) * step[0] - GAP, len(columns[0]) * step[1] - GAP
    sheet = Image.new("RGB", size, "white")
    for i, column in enumerate(columns):
        for j, cell in enumerate(column):
            x, y = i * step[0], j * step[1]
            sheet.paste(draw_caption(cell, width, line), (x, y))
            picture = Image.fromarray(cell.image)
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BOX)  # whole pixels
            sheet.paste(picture, (x, y + line))
    return np.asarray(sheet)


def draw_caption(cell: Cell, width: int, line: int) -> Image.Image:
    """A strip of `width` x `line` pixels: the caption left, the colour scale right."""
    strip = Image.new("RGB", (width, line), "white")
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(size=line * 0.7)
    draw.text((2, line / 2), cell.caption, "black", font=font, anchor="lm")
    if cell.scale is not None and width >= 16 * line:
        low, high = cell.ends
        right = width - 4 - draw.textlength(high, font=font)
        bar = round(3.5 * line)
        left = round(right - line / 4) - bar
        draw.text((right, line / 2), high, "black", font=font, anchor="lm")
        draw.text((left - line / 4, line / 2), low, "black", font=font, anchor="rm")
        colours = Image.fromarray(cell.scale[None]).resize((bar, line // 2))
        strip.paste(colours, (left, line // 4))
    return strip
