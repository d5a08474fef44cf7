# Photos as the network takes them: resized to its height, cropped to a square.
from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def prepare_square(image: Image.Image, K: Tensor, size: int, patch: int) -> tuple[Tensor, Tensor]:
    """A square [3,S,S] in [0,1] from the middle of a photo, whose shorter side becomes `size`, and
    its K [3,3]; otherwise as `prepare_photo`, whose squares of portraits are smaller."""
    height = max(size, size * image.height // image.width)
    return prepare_photo(image, K, height, patch)


def prepare_photo(
    image: Image.Image, K: Tensor, size: int, patch: int = 8, *, square: bool = True
) -> tuple[Tensor, Tensor]:
    """A photo [3,H,W] in [0,1] of height `size` and its K [3,3], in pixels.

    The width follows the photo's shape, to a multiple of `patch` (rounded down, then to even); a
    square is cut from the middle, of the shorter side. Pillow's Lanczos filter, as the original.
    """
    width, height = image.size
    resized = round(int(size / height * width) / patch) * patch, size
    K = K.clone()
    K[0] *= resized[0] / width
    K[1] *= resized[1] / height
    image = image.convert("RGB").resize(resized, Image.Resampling.LANCZOS)
    if square:
        side = min(resized)
        left, top = ((n - side) // 2 for n in resized)
        image = image.crop((left, top, left + side, top + side))
        K[0, 2] -= left
        K[1, 2] -= top
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return pixels.float() / 255, K
