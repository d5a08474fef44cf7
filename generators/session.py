# Efficient-LVSM as a session: photos are encoded once and kept, each in a slot of a cache that
# grows and shrinks; views of any cameras are drawn from what is there.
from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.efficient_lvsm import EfficientLVSM
from models.efficient_lvsm.model import join
from models.layers.rays import pixel_rays, plucker
from models.layers.slot_cache import SlotCache
from scenes.cameras import Cameras
from scenes.normalize import compute_mean_pose_normalization, transform_viewmats
from triplets.pictures import resize

log = logging.getLogger(__name__)

CHUNK = 4  # targets drawn at a time
OUTSIDE = 1.5  # largest coordinate of a camera, in those of the cameras that the frame is from


@dataclass(frozen=True)
class Frame:
    """The world that a network was trained in: the mean of some cameras, at a fixed scale."""

    similarity: np.ndarray
    """[4,4] float64 from the scene's world."""
    largest: float
    """Coordinate of a camera that it was made from."""

    @classmethod
    def of(cls, cameras: Cameras) -> Frame:
        """The frame of cameras; ValueError where they are at one place."""
        poses = np.linalg.inv(cameras.viewmats.double().cpu().numpy())
        frame = cls(compute_mean_pose_normalization(poses), 1.0)
        return cls(frame.similarity, frame.reach(cameras))

    def move(self, cameras: Cameras) -> Cameras:
        """The same cameras in this frame."""
        viewmats = transform_viewmats(self.similarity, cameras.viewmats.double().cpu().numpy())
        return Cameras(torch.from_numpy(viewmats).float(), cameras.Ks.cpu(), cameras.sizes)

    def reach(self, cameras: Cameras) -> float:
        """Largest coordinate of the cameras, in units of `largest`."""
        return self.move(cameras).positions.abs().max().item() / self.largest


class Session:
    """Photos of one scene, added and removed at will, and views rendered from them.

    All work in one frame, which the first photos set, or `set_frame` before them. `capacity` photos
    have room; their slots are allocated at the first one, and none is ever copied whole.
    """

    def __init__(self, model: EfficientLVSM, *, capacity: int = 16, chunk: int = CHUNK) -> None:
        if capacity < 1 or chunk < 1:
            raise ValueError(f"capacity {capacity} and chunk {chunk} must be at least 1")
        self.model, self.capacity, self.chunk = model, capacity, chunk
        self.frame: Frame | None = None
        self.caches: list[SlotCache] = []
        self.ids = count()

    @property
    def views(self) -> tuple[int, ...]:
        """The ids of the photos that are there, in the order in which they came."""
        return tuple(self.caches[0].slots) if self.caches else ()

    @property
    def slot_bytes(self) -> int:
        """Memory of a photo of the trained size in the cache."""
        config, size = self.model.config, self.model.colors.weight.element_size()
        return 2 * config.depth * (config.image_size // config.patch) ** 2 * config.width * size

    def set_frame(self, cameras: Cameras) -> None:
        """Normalise by these cameras, such as all that will be shown and asked for, as in training.

        ValueError where they are at one place, or photos are there already."""
        if self.views:
            raise ValueError("the frame is fixed while photos are there: remove them first")
        self.frame = Frame.of(cameras)

    @torch.inference_mode()
    def add_views(self, images: Sequence[Tensor], cameras: Cameras) -> list[int]:
        """Encode photos [H,W,3] in [0,1], of the cameras' sizes, and return their ids.

        ValueError where there is no room, sizes do not fit, or (at first) one camera, or several at
        one place, tell no scale."""
        if len(images) != len(cameras) or not len(images):
            raise ValueError(f"{len(images)} photos for {len(cameras)} cameras")
        for image, size in zip(images, cameras.sizes.tolist(), strict=True):
            if tuple(image.shape) != (size[1], size[0], 3):
                raise ValueError(
                    f"a photo is {list(image.shape)}, its camera {size[0]}x{size[1]} pixels; give "
                    "[H,W,3] of the camera's size"
                )
            if not image.is_floating_point() or not (image.min() >= 0 and image.max() <= 1):
                raise ValueError("photos are floats in [0,1]; divide 8-bit values by 255 first")
        if len(self.views) + len(images) > self.capacity:
            raise ValueError(
                f"room for {self.capacity} photos, {len(self.views)} of them taken: no place for "
                f"{len(images)} more; remove some, or begin with a larger capacity"
            )
        if self.frame is None:
            self.set_frame(cameras)
        elif self.frame.reach(cameras) > OUTSIDE:
            log.warning(
                "a photo is %.1f times as far out as the photos that set the frame: expect worse "
                "views, or begin a session with it",
                self.frame.reach(cameras),
            )
        added = []
        inputs = [self.prepare(image, cameras[i]) for i, image in enumerate(images)]
        self.allocate(inputs)
        for photo, rays in inputs:
            contexts = join(self.model.encode(photo[None], rays[None]))
            added.append(next(self.ids))
            for cache, context in zip(self.caches, contexts, strict=True):
                cache.add(added[-1], *context)
        return added

    @torch.inference_mode()
    def remove(self, ids: Sequence[int]) -> None:
        """Take photos away, as if they had never been there. ValueError for an id that is not
        there."""
        ids = list(dict.fromkeys(ids))
        missing = [i for i in ids if i not in self.views]
        if missing:
            raise ValueError(f"no photo {missing[0]} is there, but {list(self.views)}")
        for cache in self.caches:
            for i in ids:
                cache.remove(i)

    @torch.inference_mode()
    def render(self, cameras: Cameras) -> list[Tensor]:
        """Views [H,W,3] in [0,1] of the cameras, float32 on the CPU, in their sizes.

        ValueError without a photo; FloatingPointError for a view that is not finite."""
        if not self.views:
            raise ValueError("add a photo first: there is nothing to render from")
        contexts = [cache.read() for cache in self.caches]
        views: dict[int, Tensor] = {}
        sizes: dict[tuple[int, ...], list[int]] = {}
        for i, size in enumerate(cameras.sizes.tolist()):
            sizes.setdefault(tuple(size), []).append(i)
        for (width, height), group in sizes.items():
            for part in (group[i : i + self.chunk] for i in range(0, len(group), self.chunk)):
                (w, h), rays = self.make_rays(cameras[part])
                drawn = self.model.decode(rays[None], contexts)[0, :, :, :h, :w]
                drawn = drawn.float().permute(0, 2, 3, 1).cpu()
                if not drawn.isfinite().all():
                    raise FloatingPointError("the network answered NaN or infinity")
                views |= zip(part, resize(drawn, height, width), strict=True)
        return [views[i] for i in range(len(cameras))]

    def make_rays(self, cameras: Cameras) -> tuple[tuple[int, int], Tensor]:
        """The size (width, height) at which cameras of one size are seen, of as many pixels as in
        training, and their rays [N,C,H,W], which go on to the next multiple of a patch."""
        config = self.model.config
        width, height = cameras.size
        factor = config.image_size / (width * height) ** 0.5
        size = tuple(max(1, round(n * factor)) for n in (width, height))
        moved, Ks = self.frame.move(cameras), cameras.Ks.cpu().clone()
        Ks[:, 0] *= size[0] / width
        Ks[:, 1] *= size[1] / height
        padded = tuple(-(-n // config.patch) * config.patch for n in size)
        rays = plucker(*pixel_rays(moved.camtoworlds, Ks, padded), config.plucker)
        return size, self.place(rays)

    def place(self, x: Tensor) -> Tensor:
        """A tensor where the network is, in its type."""
        return x.to(self.model.colors.weight)

    def prepare(self, image: Tensor, camera: Cameras) -> tuple[Tensor, Tensor]:
        """A photo [1,3,H,W] in [-1,1], and its rays [1,C,H,W], as the network takes them."""
        (width, height), rays = self.make_rays(camera)
        photo = pad(resize(image[None].cpu(), height, width), rays.shape[-1], rays.shape[-2])
        return self.place(2 * photo - 1), rays

    def allocate(self, inputs: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Room for `capacity` photos of the largest one's tokens, at the first call; later it
        checks that there is room for these. ValueError if not."""
        config, weight = self.model.config, self.model.colors.weight
        tokens = [rays.shape[-1] * rays.shape[-2] // config.patch**2 for _, rays in inputs]
        if not self.caches:
            sizes = 1, config.heads, self.capacity * max(tokens), config.head_dim
            try:
                self.caches = [
                    SlotCache.empty(*sizes, weight.device, weight.dtype)
                    for _ in range(config.depth)
                ]
            except (RuntimeError, MemoryError):  # torch's, of a CPU and of a GPU
                whole = 2 * config.depth * math.prod(sizes) * weight.element_size() / 2**30
                raise ValueError(
                    f"room for {self.capacity} photos takes {whole:.1f} GiB, more than there is: "
                    "begin with a smaller capacity"
                ) from None
        cache = self.caches[0]
        if cache.length + sum(tokens) > cache.capacity:
            raise ValueError(
                f"the slots are for smaller photos: {cache.capacity - cache.length} tokens are "
                f"left, {sum(tokens)} needed; remove some, or begin with a larger capacity"
            )


def pad(images: Tensor, width: int, height: int) -> Tensor:
    """Images [N,H,W,3] as [N,3,height,width]: the last row and column go on."""
    planes = images.permute(0, 3, 1, 2)
    return F.pad(planes, (0, width - planes.shape[-1], 0, height - planes.shape[-2]), "replicate")
