# What a step trains on: a photo, or a random crop of it, with its camera.
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scenes.cameras import Cameras
from scenes.scene import Scene


@dataclass(frozen=True)
class Photo:
    """A photo to train on.

    view: its index in the scene. camera: one, of the crop. image: [H, W, 3] in [0, 1]. mask: bool
    [H, W], where it counts; None: everywhere. alpha: [H, W] in [0, 1]; None: opaque. corner: (x, y)
    of the crop in the whole photo, which is `whole` (width, height) pixels.
    """

    view: int
    camera: Cameras
    image: Tensor
    mask: Tensor | None
    alpha: Tensor | None
    corner: tuple[int, int]
    whole: tuple[int, int]


def take_photo(
    scene: Scene,
    cameras: Cameras,
    view: int,
    background: Tensor | None,
    patch_size: int | None = None,
) -> Photo:
    """View `view` on the device of `cameras`, the scene's; with patch_size, a random square of it
    (torch's global generator), no larger than the photo."""
    camera, image = cameras[view], scene.image(view, background)
    mask, alpha = scene.mask(view), scene.alpha(view)
    whole = camera.size
    corner = (0, 0)
    if patch_size is not None:
        sides = [min(patch_size, side) for side in whole]
        spare = [side - part + 1 for side, part in zip(whole, sides, strict=True)]
        corner = tuple(int(torch.randint(n, ())) for n in spare)
        columns, rows = (slice(a, a + n) for a, n in zip(corner, sides, strict=True))
        image = image[rows, columns]
        mask = None if mask is None else mask[rows, columns]
        alpha = None if alpha is None else alpha[rows, columns]
        Ks = camera.Ks.clone()
        Ks[0, :2, 2] -= torch.tensor(corner).to(Ks)
        camera = Cameras(camera.viewmats, Ks, torch.tensor([sides]))
    image = image.to(camera.Ks.device, non_blocking=True)
    return Photo(view, camera, image, mask, alpha, corner, whole)
