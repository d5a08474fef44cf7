# Views of captures to train on: some frames of a scene, in the frame of their mean pose.
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.layers.rays import Plucker, pixel_rays, plucker
from scenes.normalize import compute_mean_pose_normalization, transform_viewmats
from scenes.re10k import ChunkedScene, ProcessedScene
from scenes.scene import Scene
from training.efficient_lvsm.pictures import prepare_photo, prepare_square
from training.efficient_lvsm.selection import select_frames, select_targets
from training.stage import Broken

TRIES = 100  # scenes drawn for a sample before none is taken to be long enough


@dataclass(frozen=True)
class PosedPhotos:
    """Square photos of a scene, in the order of the capture.

    photos: uint8 [F,3,S,S]. camtoworlds: float64 [F,4,4]. Ks: float32 [F,3,3].
    """

    name: str
    photos: Tensor
    camtoworlds: np.ndarray
    Ks: Tensor

    @classmethod
    def from_scene(
        cls, scene: Scene, views: Sequence[int], size: int, patch: int, name: str = ""
    ) -> PosedPhotos:
        """These views of a scene, cropped to squares of `size` pixels."""
        photos, Ks = [], []
        for view in views:
            image = Image.fromarray(np.asarray(scene.images[view])[..., :3])
            photo, K = prepare_square(image, scene.cameras.Ks[view].cpu(), size, patch)
            photos.append((photo * 255).round().byte())
            Ks.append(K)
        poses = np.linalg.inv(scene.cameras.viewmats[list(views)].double().cpu().numpy())
        return cls(name or scene.path.name, torch.stack(photos), poses, torch.stack(Ks))

    def __len__(self) -> int:
        return len(self.photos)

    def without(self, views: Sequence[int]) -> PosedPhotos:
        """The scene without some of its photos."""
        others = [i for i in range(len(self)) if i not in views]
        poses, Ks = self.camtoworlds[others], self.Ks[others]
        return PosedPhotos(self.name, self.photos[others], poses, Ks)

    def choose(self, frames: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Photos [V,3,S,S] in [0,1], normalised camera-to-world matrices [V,4,4] and Ks [V,3,3] of
        these frames. ValueError where their cameras are at one place."""
        photos = self.photos[list(frames)].float() / 255
        return photos, normalize(self.camtoworlds[list(frames)]), self.Ks[list(frames)]


@dataclass(frozen=True)
class ProcessedPhotos:
    """Square photos of a scene of RealEstate10K, read when they are asked for; otherwise as
    `PosedPhotos`. frames: those of the scene that are these photos."""

    scene: ProcessedScene | ChunkedScene
    frames: tuple[int, ...]
    size: int
    patch: int

    @property
    def name(self) -> str:
        """The scene's."""
        return self.scene.name

    @property
    def camtoworlds(self) -> np.ndarray:
        """Float64 [F,4,4]."""
        return np.linalg.inv(self.scene.viewmats[list(self.frames)])

    def __len__(self) -> int:
        return len(self.frames)

    def without(self, views: Sequence[int]) -> ProcessedPhotos:
        """The scene without some of its photos."""
        return replace(self, frames=tuple(f for i, f in enumerate(self.frames) if i not in views))

    def choose(self, frames: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """As `PosedPhotos.choose`; ValueError also for a picture that cannot be read."""
        own = [self.frames[frame] for frame in frames]
        ready = [
            prepare_photo(self.scene.image(f), self.scene.Ks[f], self.size, self.patch) for f in own
        ]
        photos, Ks = (torch.stack(parts) for parts in zip(*ready, strict=True))
        return photos, normalize(np.linalg.inv(self.scene.viewmats[own])), Ks


def normalize(poses: np.ndarray) -> Tensor:
    """Camera-to-world matrices [V,4,4] in the frame of their mean, float32. ValueError where the
    cameras are at one place."""
    similarity = compute_mean_pose_normalization(poses)
    moved = np.linalg.inv(transform_viewmats(similarity, np.linalg.inv(poses)))
    return torch.from_numpy(moved).float()


@dataclass(frozen=True)
class Views:
    """A batch: photos [B,V,3,S,S] in [0,1], camera-to-world matrices [B,V,4,4], Ks [B,V,3,3], and
    which views are asked for [B,M]; the others' inputs are the first ones."""

    keys: list[str]
    photos: Tensor
    camtoworlds: Tensor
    Ks: Tensor
    targets: Tensor
    step: int = 0
    step_seed: int = 0

    def to(self, device: torch.device) -> Views:
        """The batch on the device."""
        names = ("photos", "camtoworlds", "Ks", "targets")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def at_step(self, step: int, seed: int) -> Views:
        """The batch with the step's number and seed."""
        return replace(self, step=step, step_seed=seed)

    def rays(self, kind: Plucker) -> Tensor:
        """Coordinates of all views' rays, [B,V,C,S,S]."""
        size = self.photos.shape[-1], self.photos.shape[-2]
        return plucker(*pixel_rays(self.camtoworlds, self.Ks, size), kind)

    def pick(self, values: Tensor) -> Tensor:
        """Of values [B,V,...] those of the targets, [B,M,...]."""
        return values[torch.arange(len(values), device=values.device)[:, None], self.targets]


class ViewSamples:
    """An item is some views of a scene, drawn by its seed: `views` frames that are between `least`
    and `most` apart, of which `targets` are asked for (`select_targets`).

    ValueError where no scene has enough frames.
    """

    def __init__(
        self,
        scenes: Sequence[PosedPhotos | ProcessedPhotos],
        *,
        views: int = 8,
        targets: int = 6,
        least: int = 25,
        most: int = 192,
        repeats: int = 1,
        target_has_input: bool = True,
    ) -> None:
        self.scenes, self.views, self.targets = list(scenes), views, targets
        self.target_has_input = target_has_input
        self.least, self.most, self.repeats = least, most, repeats
        if targets >= views:
            raise ValueError(f"{targets} targets need more than {views} views")
        if max(least, views) >= most:
            raise ValueError(
                f"--views={views} photos are at least {max(least, views)} frames apart, more than "
                f"--most={most} allows"
            )
        lengths = [len(scene) for scene in self.scenes]
        rng = random.Random(0)
        if all(select_frames(n, views, rng, least, most) is None for n in lengths):
            raise ValueError(
                f"no scene has {views} frames that are {max(least, views)} to {most} apart: the "
                f"longest has {max(lengths, default=0)} frames"
            )

    def __len__(self) -> int:
        return len(self.scenes) * self.repeats

    def __getitem__(self, item: tuple[int, int]) -> tuple | Broken:
        index, seed = item
        rng, index = random.Random(seed), index % len(self.scenes)
        for _ in range(TRIES):
            scene = self.scenes[index]
            frames = select_frames(len(scene), self.views, rng, self.least, self.most)
            if frames is not None:
                break
            index = rng.randrange(len(self.scenes))
        else:
            return Broken(scene.name, f"no scene with enough frames was met in {TRIES} draws")
        try:
            taken = scene.choose(frames)
        except ValueError as error:
            return Broken(scene.name, str(error))
        targets = select_targets(self.views, self.targets, rng, has_input=self.target_has_input)
        return scene.name, *taken, torch.tensor(targets)

    def collate(self, samples: Sequence) -> Views | Broken:
        """A batch of the items, or the first that is broken."""
        for sample in samples:
            if isinstance(sample, Broken):
                return sample
        keys, *tensors = zip(*samples, strict=True)
        return Views(list(keys), *map(torch.stack, tensors))
