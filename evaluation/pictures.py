# Comparison pictures: 8-bit conversion, error maps, rows of images, PNG files.
from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from runtime.files import write_bytes

ERROR_TOP = 0.25  # the error at the bright end of the scale; larger ones are clamped
ERROR_COLORMAP = "magma"  # perceptually uniform: black for no error, pale yellow at the top


@cache
def load_colormap(name: str) -> np.ndarray:
    """The 256 colours of one of matplotlib's colormaps, uint8 [256, 3]; KeyError if unknown."""
    from matplotlib import colormaps

    return (colormaps[name](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8)


def to_uint8(image: Tensor | np.ndarray) -> np.ndarray:
    """Floats in [0, 1], any shape, to uint8: clamped, rounded to nearest, NaN to 0.

    uint8 is returned unchanged. Raises ValueError for another integer type.
    """
    image = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"A picture is {image.dtype}; give floats in [0, 1] or uint8.")
    return (np.nan_to_num(image, nan=0.0).clip(0, 1) * 255).round().astype(np.uint8)


def draw_error_map(
    prediction: Tensor | np.ndarray, truth: Tensor | np.ndarray, top: float = ERROR_TOP
) -> np.ndarray:
    """Absolute error, mean over RGB, as colours: uint8 [H, W, 3].

    prediction, truth: [H, W, 3], floats in [0, 1] or uint8. The colour scale is fixed, from 0
    (black) to `top` (pale yellow), so that maps of different views and runs can be compared. Raises
    ValueError if sizes differ.
    """
    prediction, truth = _unit(prediction), _unit(truth)
    if prediction.shape != truth.shape:
        raise ValueError(
            f"The prediction is {list(prediction.shape)} but the truth is {list(truth.shape)}; "
            "an error map compares images of one size."
        )
    error = np.abs(prediction - truth).mean(-1) / top
    return load_colormap(ERROR_COLORMAP)[to_uint8(error)]


def join_side_by_side(images: Sequence[Tensor | np.ndarray], gap: int = 0) -> np.ndarray:
    """The images [H, W_i, 3] in a row, separated by `gap` white pixels: uint8 [H, sum, 3].

    Raises ValueError for no images or different heights.
    """
    images = [to_uint8(image) for image in images]
    if len({image.shape[0] for image in images}) != 1:
        raise ValueError("A canvas needs one or more images of one height.")
    height = images[0].shape[0]
    white = np.full((height, gap, 3), 255, np.uint8)
    parts = [part for image in images for part in (white, image)][1:]
    return np.concatenate(parts, axis=1)


def save_png(path: Path, image: Tensor | np.ndarray) -> Path:
    """Write an image [H, W, 3] or [H, W], floats in [0, 1] or uint8, as a PNG, atomically."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(buffer, "PNG", compress_level=1)  # 4 times as fast as 6
    return write_bytes(path, buffer.getvalue())


def _unit(image: Tensor | np.ndarray) -> np.ndarray:
    image = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    return image.astype(np.float32) / 255 if image.dtype == np.uint8 else image.clip(0, 1)
