# One procedural place: exact pictures and depth at any camera, camera paths, surface points.
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from scenes.cameras import Cameras
from scenes.procedural import paths, raycaster
from scenes.procedural.builder import Builder
from scenes.procedural.places import KINDS, Place
from scenes.procedural.raycaster import World

LONGEST_SIDE = 16384  # of a picture, in pixels
PATHS = {"orbit": paths.orbit, "walk": paths.walk}


class ProceduralScene:
    """A place generated from a seed; the same seed gives bit-identical pictures.

    World: metres, z up. Sky and surroundings lie on a dome of finite radius, so that every pixel
    has a depth.
    """

    def __init__(self, seed: int, kind: str, place: Place, world: World) -> None:
        self.seed, self.kind, self.place, self.world = seed, kind, place, world
        self.exposure = 1.0
        self.exposure = self._measure_exposure()

    def render(self, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """Images float32 [N, H, W, 3] in [0, 1] and depths float32 [N, H, W] (camera z, metres).

        ValueError if the cameras' sizes differ.
        """
        width, height = cameras.size
        images = np.empty((len(cameras), height, width, 3), np.float32)
        depths = np.empty((len(cameras), height, width), np.float32)
        first = np.empty((height, width, 3), np.float32)
        keys = np.empty((height, width), np.int64)
        poses = np.linalg.inv(cameras.viewmats.cpu().double().numpy())[:, :3]
        Ks = cameras.Ks.cpu().double().numpy()
        for pose, K, image, depth in zip(poses, Ks, images, depths, strict=True):
            pose = np.ascontiguousarray(pose)
            raycaster.render(self.world, pose, K, self.exposure, image, depth, first, keys)
        return torch.from_numpy(images), torch.from_numpy(depths)

    def capture(
        self, n_views: int, width: int, height: int, path: str | None = None, seed: int = 0
    ) -> Cameras:
        """[n_views] cameras on a path: "orbit" or "walk" (None: the seed decides).

        The field of view of the longer side is 60 to 70 degrees. `seed` varies the path in the
        same place. Raises ValueError for an unknown path or sizes below 1 or over LONGEST_SIDE.
        """
        if min(n_views, width, height) < 1:
            raise ValueError(f"views and sizes must be at least 1, got {n_views}, {width}x{height}")
        check_size(width, height)
        rng = np.random.default_rng([self.seed, 1, seed])
        if path is None:
            path = "orbit" if self.kind == "tabletop" else str(rng.choice(sorted(PATHS)))
        if path not in PATHS:
            raise ValueError(f"unknown path {path!r}; choose one of {', '.join(sorted(PATHS))}")
        poses = PATHS[path](rng, self.place, n_views, self._clearance)
        focal = max(width, height) / (2 * math.tan(math.radians(rng.uniform(60, 70)) / 2))
        K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        return Cameras(
            torch.from_numpy(np.linalg.inv(poses)).float(),
            K.float().repeat(n_views, 1, 1),
            torch.tensor([[width, height]]).repeat(n_views, 1),
        )

    def points(
        self, cameras: Cameras, count: int, seed: int = 0, noise: float = 0.002
    ) -> tuple[Tensor, Tensor]:
        """Surface points [P, 3] and colours [P, 3] in [0, 1], P <= count, as from matching.

        Pixels are drawn from the views, more often where the picture has detail, never in the sky.
        noise: standard deviation of the depth error, relative to depth.
        """
        rng = np.random.default_rng([self.seed, 2, seed])
        small = cameras.scaled(min(1.0, 256 / max(cameras.size)))
        width, _ = small.size
        share = np.diff(np.linspace(0, count, len(small) + 1).round().astype(int))
        points, colours = [], []
        for k, wanted in enumerate(share):
            if not wanted:
                continue
            view = small[k]
            image, depth = (x[0].numpy() for x in self.render(view))
            grey = image.mean(-1)
            detail = np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
            detail += np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
            weight = (detail + 0.02) * (depth < 0.4 * self.world.dome)
            weight = weight.ravel().astype(float)
            if weight.sum() == 0:
                continue
            wanted = min(int(wanted), int((weight > 0).sum()))
            pick = rng.choice(len(weight), wanted, replace=False, p=weight / weight.sum())
            row, column = np.divmod(pick, width)
            K = view.Ks[0].double().numpy()
            z = depth.ravel()[pick] * (1 + noise * rng.standard_normal(wanted))
            x = (column + 0.5 - K[0, 2]) / K[0, 0] * z
            y = (row + 0.5 - K[1, 2]) / K[1, 1] * z
            pose = np.linalg.inv(view.viewmats[0].double().numpy())
            points.append(np.stack([x, y, z], 1) @ pose[:3, :3].T + pose[:3, 3])
            colours.append(image.reshape(-1, 3)[pick])
        if not points:
            return torch.zeros(0, 3), torch.zeros(0, 3)
        return (
            torch.from_numpy(np.concatenate(points)).float(),
            torch.from_numpy(np.concatenate(colours)).float(),
        )

    def _clearance(self, points: np.ndarray) -> np.ndarray:
        return raycaster.clearance(self.world, np.ascontiguousarray(points, float))

    def _measure_exposure(self) -> float:
        """An exposure for the whole capture, from a few small views, as a fixed camera setting."""
        images, _ = self.render(self.capture(8, 32, 24, seed=7))
        linear = images.double() ** 2.2
        # Undo the tone curve (a quadratic in the radiance) to average light itself.
        a, b, c = 2.51 - 2.43 * linear, 0.03 - 0.59 * linear, -0.14 * linear
        light = (-b + (b * b - 4 * a * c).sqrt()) / (2 * a)
        grey = light.clamp(1e-4, 4.0).mean(-1)
        return 0.17 / grey.log().mean().exp().item()


def check_size(width: int, height: int) -> None:
    """Raise ValueError if a side of a picture exceeds LONGEST_SIDE pixels."""
    if max(width, height) > LONGEST_SIDE:
        raise ValueError(f"a side has at most {LONGEST_SIDE} pixels, got {width}x{height}")


def generate(seed: int, kind: str | None = None) -> ProceduralScene:
    """The scene of this seed: a "room", a "tabletop" or a "courtyard" (None: the seed decides).

    Raises ValueError for an unknown kind or a negative seed.
    """
    if seed < 0:
        raise ValueError(f"the seed must not be negative, got {seed}")
    rng = np.random.default_rng([seed, 0])
    drawn = str(rng.choice(sorted(KINDS)))  # always, so that the rest is the same for any `kind`
    kind = drawn if kind is None else kind
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; choose one of {', '.join(sorted(KINDS))}")
    builder = Builder(rng)
    place = KINDS[kind](builder)
    return ProceduralScene(seed, kind, place, builder.build(sky_light=place.sky_light))
