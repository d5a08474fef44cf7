# Pictures on disk and in memory: their pixels, alpha and sizes; one way to resize them.
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from scenes.photos import UnreadablePhoto, decode, read_header

TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def read_image(path: Path) -> Tensor:
    """[H,W,3] in [0,1], upright. Raises ValueError naming the file."""
    try:
        pixels, _ = decode(path, upright=True)
    except UnreadablePhoto as error:
        raise ValueError(f"{path} {error}") from None
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255


def read_render(path: Path) -> tuple[Tensor, Tensor | None]:
    """A picture [H,W,3] and its alpha [H,W], None where it has none, both in [0,1]; what is
    transparent is black. Raises ValueError naming the file."""
    opaque = read_image(path)
    with Image.open(path) as picture:
        if not picture.has_transparency_data:
            return opaque, None
        pixels = np.array(ImageOps.exif_transpose(picture).convert("RGBA"))
    rgba = torch.from_numpy(pixels).float() / 255
    alpha = rgba[..., 3]
    return rgba[..., :3] * alpha[..., None], alpha


def read_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture, upright, from its header. Raises ValueError naming the
    file."""
    try:
        width, height, orientation = read_header(path)
    except UnreadablePhoto as error:
        raise ValueError(f"{path} {error}") from None
    return (height, width) if orientation in TURNED else (width, height)


def size_text(picture: Tensor | tuple[int, int]) -> str:
    """<width>x<height> of a picture [H,W,C], or of its width and height."""
    width, height = picture if isinstance(picture, tuple) else reversed(picture.shape[:2])
    return f"{width}x{height}"


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """Images [...,H,W,C] in [0,1] at another size: bicubic, antialiased."""
    if images.shape[-3:-1] == (height, width):
        return images
    planes = images.flatten(0, -4) if images.ndim > 3 else images[None]
    planes = resize_planes(planes.permute(0, 3, 1, 2), (height, width), (0, 1))
    return planes.permute(0, 2, 3, 1).reshape(*images.shape[:-3], height, width, images.shape[-1])


def resize_planes(
    planes: Tensor, size: tuple[int, int], values: tuple[float, float] = (-1, 1)
) -> Tensor:
    """As `resize`, in the layout of networks: [N,C,H,W] with `values` from least to most."""
    if planes.shape[-2:] == size:
        return planes
    return F.interpolate(planes, size, mode="bicubic", antialias=True).clamp(*values)
