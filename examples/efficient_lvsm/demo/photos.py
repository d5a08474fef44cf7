# The scenes of the demo: square photos as the network was trained on, and their cameras.
from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import scenes
from scenes.cameras import Cameras
from scenes.re10k import ChunkedScene, ProcessedScene, list_scenes
from training.efficient_lvsm.pictures import prepare_square

log = logging.getLogger(__name__)

MOST = 30  # scenes that are offered


@dataclass(frozen=True)
class Photos:
    """A scene's photos in their order.

    names: of the photos. viewmats: float64 [F,4,4]. target: the view that is asked for first.
    read: a frame's photo [S,S,3] in [0,1] and its K [3,3]; ValueError where it cannot be read.
    """

    name: str
    names: tuple[str, ...]
    viewmats: np.ndarray
    target: int
    read: Callable[[int], tuple[Tensor, Tensor]]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def positions(self) -> np.ndarray:
        """Of the cameras, float64 [F,3]."""
        return np.linalg.inv(self.viewmats)[:, :3, 3]

    def poses(self) -> Cameras:
        """Where all cameras are and how they look; of lenses and sizes it tells nothing."""
        count = len(self)
        viewmats, Ks = torch.from_numpy(self.viewmats).float(), torch.eye(3).expand(count, 3, 3)
        return Cameras(viewmats, Ks, torch.ones(count, 2, dtype=torch.long))

    def load(self, frame: int) -> tuple[Tensor, Cameras]:
        """A frame's photo [S,S,3] in [0,1] and its camera. ValueError where it cannot be read."""
        image, K = self.read(frame)
        viewmats = torch.from_numpy(self.viewmats[[frame]]).float()
        return image, Cameras(viewmats, K[None], torch.tensor([image.shape[1::-1]]))


def list_photos(
    captures: Sequence[Path],
    lists: Sequence[Path],
    size: int,
    patch: int,
    window: int | None = None,
) -> list[Photos]:
    """The first scenes of captures and of lists (`scenes.re10k.list_scenes`), squares of `size`;
    of each the `window` consecutive photos in the middle, by default all.

    Captures are read here, pictures of lists when they are asked for. Raises ValueError or OSError,
    naming the file."""
    photos = [read_capture(path, size, patch, window) for path in captures[:MOST]]
    for path in lists:
        listed = list_scenes(path, MOST - len(photos))
        photos += [from_frames(scene, size, patch, window) for scene in listed]
    if len(photos) == MOST:
        log.info("the first %d scenes are offered", MOST)
    return name_apart(photos)


def read_capture(path: Path, size: int, patch: int, window: int | None = None) -> Photos:
    """The photos of a capture; the one that is held out in the middle is the target."""
    scene = scenes.load(path, data_factor=0)
    if scene.masks is not None:
        log.info("%s: its masks have no part in the demo", path)
    frames = middle(len(scene), window)
    squares = [
        crop(Image.fromarray(scene.images[i]), scene.cameras.Ks[i].cpu(), size, patch)
        for i in frames
    ]
    squares = [((image * 255).round().byte(), K) for image, K in squares]

    def read(frame: int) -> tuple[Tensor, Tensor]:
        image, K = squares[frame]
        return image.float() / 255, K

    names = tuple(scene.names[i] for i in frames)
    viewmats = scene.cameras.viewmats[frames].double().cpu().numpy()
    held_out = [i for i, frame in enumerate(frames) if frame in scene.split.test]
    target = held_out[len(held_out) // 2] if held_out else len(frames) // 2
    return Photos(scene.path.resolve().name, names, viewmats, target, read)


def from_frames(
    scene: ProcessedScene | ChunkedScene, size: int, patch: int, window: int | None = None
) -> Photos:
    """A scene of RealEstate10K; the frame in the middle is the target."""
    frames = middle(len(scene), window)

    def read(frame: int) -> tuple[Tensor, Tensor]:
        return crop(scene.image(frames[frame]), scene.Ks[frames[frame]], size, patch)

    names = tuple(f"frame {i}" for i in frames)
    return Photos(scene.name, names, scene.viewmats[frames], len(frames) // 2, read)


def middle(count: int, window: int | None) -> list[int]:
    """The `window` consecutive indices in the middle of so many; None: all."""
    taken = min(count, window or count)
    return list(range((count - taken) // 2, (count + taken) // 2))


def crop(image: Image.Image, K: Tensor, size: int, patch: int) -> tuple[Tensor, Tensor]:
    """The square in the middle [S,S,3] of a photo, its shorter side `size`, and its K."""
    photo, K = prepare_square(image, K, size, patch)
    return photo.permute(1, 2, 0), K


def name_apart(photos: Sequence[Photos]) -> list[Photos]:
    """The same scenes; of those with one name the second is called `name (2)`."""
    seen: dict[str, int] = {}
    named = []
    for scene in photos:
        seen[scene.name] = seen.get(scene.name, 0) + 1
        number = seen[scene.name]
        named.append(scene if number == 1 else replace(scene, name=f"{scene.name} ({number})"))
    return named
