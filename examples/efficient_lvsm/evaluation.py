# Views of RealEstate10K's scenes by an index of input and target frames: drawn, measured, written,
# a folder for each scene, so that a stopped evaluation goes on.
from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from evaluation.metrics import Metrics, average
from evaluation.pictures import join_side_by_side, save_png
from evaluation.reference_metrics import ReferenceMetrics
from evaluation.video import write_video
from models.efficient_lvsm import EfficientLVSM
from models.efficient_lvsm.model import join
from models.layers.rays import pixel_rays, plucker
from runtime.files import make_writable_folder, write_json
from scenes.re10k import ChunkedScene, ProcessedScene
from splats.paths import interpolate_pairs
from training.efficient_lvsm.samples import ProcessedPhotos, Views
from training.efficient_lvsm.selection import evaluated_frames

log = logging.getLogger(__name__)

CHUNK = 4  # frames of a video drawn at a time
COMPARED = 256  # pixels that pictures are resized to with inference.resize


@dataclass(frozen=True)
class Sample:
    """A scene of an evaluation: its number among all, and the frames that are given and asked
    for."""

    number: int
    scene: ProcessedScene | ChunkedScene
    inputs: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return f"{self.number:06d}"


def choose_samples(
    scenes: Sequence[ProcessedScene | ChunkedScene],
    index: Mapping[str, tuple[Sequence[int], Sequence[int]]],
    inputs: int,
    most: int | None = None,
) -> list[Sample]:
    """What is evaluated: the scenes with an entry in the index; at most so many, evenly chosen.

    ValueError where no scene has one, or an entry names frames that are not there."""
    samples = []
    for number, scene in enumerate(scenes):
        if scene.name not in index:
            continue
        context, targets = index[scene.name]
        if inputs > 1 and len(set(context)) < 2:
            raise ValueError(
                f"{scene.name} has the context {list(context)} in the index "
                f"(inference.view_idx_file_path): {inputs} inputs need two frames"
            )
        frames = evaluated_frames(context, targets, inputs)
        if max(frames) >= len(scene):
            raise ValueError(
                f"{scene.name} has {len(scene)} frames; the index (inference.view_idx_file_path) "
                f"asks for {max(frames)}"
            )
        samples.append(Sample(number, scene, tuple(frames[:inputs]), tuple(frames[inputs:])))
    if not samples:
        raise ValueError(
            f"none of the {len(scenes)} scenes is in the index (inference.view_idx_file_path)"
        )
    if len(samples) < len(scenes):
        log.info("%d of %d scenes are in the index", len(samples), len(scenes))
    shown = sum(frame in s.inputs for s in samples for frame in s.targets)
    if shown:
        total = sum(len(s.targets) for s in samples)
        log.warning("%d of %d targets are among the inputs: they count all the same", shown, total)
    if most is not None and most < len(samples):
        places = np.linspace(0, len(samples) - 1, most).round().astype(int)
        samples = [samples[i] for i in places]
    return samples


class Pictures(torch.utils.data.Dataset):
    """The samples' photos and cameras, normalised together."""

    def __init__(self, samples: Sequence[Sample], size: int, patch: int) -> None:
        self.samples, self.size, self.patch = samples, size, patch

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        sample = self.samples[i]
        every = tuple(range(len(sample.scene)))
        photos = ProcessedPhotos(sample.scene, every, self.size, self.patch)
        return photos.choose([*sample.inputs, *sample.targets])


@dataclass(frozen=True)
class Settings:
    """What an evaluation computes and writes."""

    out: Path
    batch: int = 12
    exact: bool = True
    resize: bool = False
    metrics: bool = True
    video: bool = False
    frames: int = 60
    loop: bool = True
    order: bool = False
    workers: int = 4


class Evaluator:
    """Draws the samples' targets and writes metrics.json, pictures and a video of each.

    dtype: of the network for the original's metrics; the exact ones are of float32."""

    def __init__(
        self,
        model: EfficientLVSM,
        settings: Settings,
        dtype: torch.dtype,
        backbones: Path | None = None,
    ) -> None:
        self.model, self.settings, self.dtype = model, settings, dtype
        self.device = next(model.parameters()).device
        self.reference = ReferenceMetrics(self.device, backbones)
        self.exact = Metrics("both", self.device, backbones) if settings.exact else None
        if settings.metrics and self.reference.lpips_reason:
            log.warning("%s", self.reference.lpips_reason)

    def run(self, samples: Sequence[Sample]) -> Iterator[Sample]:
        """Evaluate the samples, in their order; each is yielded when its folder is whole."""
        config = self.model.config
        loader = DataLoader(
            Pictures(samples, config.image_size, config.patch),
            batch_size=self.settings.batch,
            num_workers=self.settings.workers,
            collate_fn=list,
        )
        done = 0
        for items in loader:
            alike: dict[tuple, list[int]] = {}  # of as many views of one size
            for i, (photos, *_) in enumerate(items):
                alike.setdefault(tuple(photos.shape), []).append(i)
            for part in alike.values():
                tensors = map(torch.stack, zip(*(items[i] for i in part), strict=True))
                yield from self.evaluate([samples[done + i] for i in part], *tensors)
            done += len(items)

    def evaluate(
        self, samples: Sequence[Sample], photos: Tensor, poses: Tensor, Ks: Tensor
    ) -> Iterator[Sample]:
        """Evaluate samples of one batch."""
        count = len(samples[0].inputs)
        targets = torch.arange(count, photos.shape[1]).expand(len(samples), -1)
        batch = Views([], photos, poses, Ks, targets).to(self.device)
        drawn = precise = self.draw(batch, count, self.dtype)
        if self.exact and self.dtype != torch.float32:
            precise = self.draw(batch, count, torch.float32)
        for i, sample in enumerate(samples):
            views = [self.fit(images) for images in (batch.photos[i], drawn[i], precise[i])]
            self.write(sample, *views, self.film(batch, i, count))
            yield sample

    @torch.inference_mode()
    def draw(self, batch: Views, count: int, dtype: torch.dtype) -> Tensor:
        """The targets' pictures [B,M,3,S,S]."""
        rays = batch.rays(self.model.config.plucker)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            given = 2 * batch.photos[:, :count] - 1
            drawn = self.model(given, rays[:, :count], batch.pick(rays)).float()
        if not drawn.isfinite().all():
            raise ValueError("the network answered NaN or infinity: are these its weights?")
        return drawn

    @torch.inference_mode()
    def film(self, batch: Views, i: int, count: int) -> list[Tensor] | None:
        """The frames [S,S,3] of a sample's video: the inputs are encoded once."""
        if not self.settings.video:
            return None
        poses, Ks = (t[i, :count].cpu().double().numpy() for t in (batch.camtoworlds, batch.Ks))
        own = self.settings
        poses, Ks = interpolate_pairs(poses, Ks, own.frames, loop=own.loop, order=own.order)
        size = batch.photos.shape[-1], batch.photos.shape[-2]
        tensors = (torch.from_numpy(t).float().to(self.device) for t in (poses, Ks))
        rays = plucker(*pixel_rays(*tensors, size), self.model.config.plucker)
        frames = []
        seen = batch.rays(self.model.config.plucker)[i : i + 1, :count]
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            contexts = join(self.model.encode(2 * batch.photos[i : i + 1, :count] - 1, seen))
            for part in rays.split(CHUNK):
                frames += self.model.decode(part[None], contexts)[0].float().cpu()
        return [frame.permute(1, 2, 0) for frame in frames]

    def fit(self, images: Tensor) -> Tensor:
        """Pictures [V,3,H,W] of the size at which they are compared."""
        if not self.settings.resize or images.shape[-2] == COMPARED:
            return images
        width = round(images.shape[-1] * COMPARED / images.shape[-2])
        return F.interpolate(images, (COMPARED, width), mode="bilinear", align_corners=False)

    def write(
        self,
        sample: Sample,
        photos: Tensor,
        drawn: Tensor,
        precise: Tensor,
        film: list[Tensor] | None,
    ) -> None:
        """A sample's folder; metrics.json comes last, so that a folder with it is whole."""
        folder = self.settings.out / sample.folder
        make_writable_folder(folder)
        inputs, truth = photos.split((len(sample.inputs), len(sample.targets)))
        strips = [
            join_side_by_side([p.permute(1, 2, 0).cpu() for p in row.clamp(0, 1)])
            for row in (inputs, truth, drawn)
        ]
        save_png(folder / "input.png", strips[0])
        save_png(folder / "gt_vs_pred.png", np.concatenate(strips[1:]))
        if film is not None:
            write_video(folder / "rendered_video.mp4", film, 30)
        rows = []
        for view, given, answer, finer in zip(sample.targets, truth, drawn, precise, strict=True):
            row: dict[str, object] = {"view": view, "is_input": view in sample.inputs}
            if self.settings.metrics:
                row |= self.reference(answer, given)
                if self.exact:
                    own = self.exact(finer.permute(1, 2, 0), given.permute(1, 2, 0))
                    row |= {f"exact_{name}": value for name, value in own.items()}
            rows.append(row)
        numbers = [{k: v for k, v in row.items() if k not in ("view", "is_input")} for row in rows]
        summary = {"scene_name": sample.scene.name} | average(numbers)
        content = {"summary": summary, "inputs": sample.inputs, "per_view": rows}
        write_json(folder / "metrics.json", content)
