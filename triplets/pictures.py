# Pictures of triplets on disk: their sizes, their pixels, their alpha.
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
    plain = read_image(path)
    with Image.open(path) as picture:
        if not picture.has_transparency_data:
            return plain, None
        pixels = np.array(ImageOps.exif_transpose(picture).convert("RGBA"))
    colours = torch.from_numpy(pixels).float() / 255
    alpha = colours[..., 3]
    return colours[..., :3] * alpha[..., None], alpha


def size(key: str, path: Path) -> tuple[int, int]:
    """Width and height of a picture, upright."""
    try:
        width, height, orientation = read_header(path)
    except UnreadablePhoto as error:
        raise ValueError(f"{key}: {path} {error}") from None
    return (height, width) if orientation in TURNED else (width, height)


def shown(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Images [N,H',W',3] in [0,1] at another size, antialiased."""
    planes = images.permute(0, 3, 1, 2)
    planes = F.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return planes.permute(0, 2, 3, 1).clamp(0, 1)
