# What python -m training.efficient_lvsm does with its flags.
from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import scenes
from evaluation.metrics import Metrics
from models.checkpoints.registry import load as load_checkpoint
from models.efficient_lvsm import PRESETS, EfficientLVSM
from models.efficient_lvsm.model import initialize
from runtime.progress import ProgressBar
from runtime.seeds import mix_seeds
from scenes.re10k import ChunkedScene, ProcessedScene, list_scenes
from training.efficient_lvsm.codec import OriginalLayout
from training.efficient_lvsm.flags import Alignment, Data, Flags, Losses
from training.efficient_lvsm.objective import Objective, Repa, parse_pairs
from training.efficient_lvsm.samples import PosedPhotos, ProcessedPhotos, ViewSamples
from training.efficient_lvsm.stage import ViewStage
from training.efficient_lvsm.teachers import Teacher, load_teacher
from training.efficient_lvsm.validation import HeldOut, ViewValidation
from training.efficient_lvsm.vgg19 import load_vgg19
from training.losses import Perceptual, load_perceptual
from training.run import Recipe, Run, plain_args, train

log = logging.getLogger(__name__)

MOST_TOLD = 20  # captures of which each is told about
REPA = ("repa", "repa_kind", "projector_dim")


def train_views(flags: Flags) -> None:
    """Train, or go on. Raises ValueError and OSError, in a sentence, for what a user can mend."""
    check(flags)
    model = make_model(flags)
    teacher = add_projectors(model, flags.alignment, flags.optimization.seed or 0)
    size, patch = model.config.image_size, model.config.patch
    captures = find_captures(flags.data.captures)
    processed = [s for path in filter(None, flags.data.lists.split(",")) for s in list_scenes(path)]

    def data(device: torch.device) -> tuple[ViewSamples, ViewValidation]:
        train_on, held_out = load_captures(captures, processed, flags.data, size, patch)
        own = flags.data
        samples = ViewSamples(
            train_on,
            views=own.views,
            targets=own.targets,
            least=own.least,
            most=own.most,
            repeats=own.repeats,
            target_has_input=own.target_has_input,
        )
        metrics = Metrics("alex", device, flags.optimization.backbones)
        span = (max(own.least, own.views) + min(own.most, 4 * own.least)) // 2
        inputs = own.inputs_least
        return samples, ViewValidation(held_out, metrics, inputs=inputs, span=span)

    def build(run: Run) -> ViewStage:
        weights = {"mse_weight": flags.losses.mse, "perceptual_weight": flags.losses.perceptual}
        weights["repa_weight"] = flags.alignment.repa_weight
        perceptual = load_features(flags.losses, run.device, flags.optimization.backbones)
        objective = Objective(perceptual, **weights)
        inputs = flags.data.inputs_least, flags.data.inputs_most
        network = run.load_weights(model)
        network.recomputed = flags.model.recompute
        if flags.model.compile:
            network.encode, network.decode = map(torch.compile, (network.encode, network.decode))
        guide = None if teacher is None else teacher.to(run.device)
        return ViewStage(network, objective, inputs, run.dtype, guide).to(run.device)

    recipe = Recipe(
        prefix="lvsm",
        codec=OriginalLayout(),
        data=data,
        build=build,
        args=plain_args(
            *(flags.data, flags.model, flags.losses, flags.optimization, flags.run),
            *((flags.alignment,) if flags.alignment.repa else ()),
        ),
        fixed=("preset", "image_size", "depth", "width", "head_dim", "patch", *REPA),
        free=("load", "vgg19", "teacher", "compile", "recompute"),
        workers=flags.data.workers,
        project="efficient-lvsm",
        about=f"{len(captures) + len(processed)} scenes at {size}x{size}",
    )
    train(recipe, flags.optimization, flags.run)


def check(flags: Flags) -> None:
    """ValueError for flags that cannot be."""
    own = flags.data
    if not own.captures and not own.lists:
        raise ValueError("--captures names the folders of captures to train on, --lists lists")
    for name in ("views", "targets", "inputs_least", "least", "repeats", "num_samples_eval"):
        if getattr(own, name) < 1:
            raise ValueError(f"--{name}={getattr(own, name)} must be at least 1")
    for name in ("depth", "width", "head_dim", "patch"):
        size = getattr(flags.model, name)
        if size is not None and size < 1:
            raise ValueError(f"--{name}={size} must be at least 1")
        if size is not None and flags.model.load is not None:
            raise ValueError(f"--{name}={size}: the size of a network is that of --load")
    if own.test_every < 2:
        raise ValueError(f"--test_every={own.test_every} must be at least 2")
    if not own.inputs_least <= own.inputs_most < own.views:
        raise ValueError(
            f"--inputs_least={own.inputs_least}, --inputs_most={own.inputs_most}: the first must "
            f"not be more than the second, and that less than --views={own.views}"
        )
    if not own.target_has_input and own.inputs_most + own.targets > own.views:
        raise ValueError(
            f"--inputs_most={own.inputs_most} and --targets={own.targets} are more than "
            f"--views={own.views}: raise that, or let targets be inputs (--target_has_input=True)"
        )
    if own.most <= own.least:
        raise ValueError(f"--most={own.most} must be more than --least={own.least}")
    if flags.model.preset not in PRESETS:
        raise ValueError(f"--preset={flags.model.preset}: choose {', '.join(PRESETS)}")
    if flags.losses.features == "vgg19" and flags.losses.vgg19 is None:
        raise ValueError("--features=vgg19 needs --vgg19=FILE, or take --features=lpips")


def make_model(flags: Flags) -> EfficientLVSM:
    """A new network, or the one in --load."""
    own = flags.model
    if own.load is not None:
        _, model = load_checkpoint(own.load)
        if not isinstance(model, EfficientLVSM):
            raise ValueError(f"--load={own.load} is no checkpoint of Efficient-LVSM")
        model.train().requires_grad_(True)
    else:
        torch.manual_seed(mix_seeds(flags.optimization.seed or 0, 8))
        sizes = {n: getattr(own, n) for n in ("depth", "width", "head_dim", "patch")}
        sizes = {name: size for name, size in sizes.items() if size is not None}
        model = EfficientLVSM(replace(PRESETS[own.preset](), **sizes))
        initialize(model, deepens=own.depth_init, encoder=own.encoder_init == "depth")
    if own.image_size is not None:
        model.config = replace(model.config, image_size=own.image_size)
    if model.config.image_size < 1 or model.config.image_size % model.config.patch:
        raise ValueError(
            f"--image_size={model.config.image_size} must be a multiple of {model.config.patch}"
        )
    return model


def add_projectors(model: EfficientLVSM, own: Alignment, seed: int) -> Teacher | None:
    """The teacher, if one is asked for, and in the model (`repa`) projectors of its tokens.

    ValueError or FileNotFoundError for flags that do not go together, and for no teacher."""
    if not own.repa:
        if own.teacher is not None:
            raise ValueError(f"--teacher={own.teacher} needs --repa, such as 8-2")
        return None
    if own.teacher is None:
        raise ValueError(f"--repa={own.repa} needs --teacher=PATH of DINOv2 or DINOv3")
    if own.projector_dim < 1:
        raise ValueError(f"--projector_dim={own.projector_dim} must be at least 1")
    pairs = parse_pairs(own.repa, model.config.depth)
    teacher = load_teacher(own.teacher, {block for blocks in pairs.values() for block in blocks})
    torch.manual_seed(mix_seeds(seed, 9))
    sizes = model.config.width, teacher.width, own.projector_dim
    model.repa = Repa(pairs, *sizes, own.repa_kind)
    return teacher


def find_captures(text: str) -> list[Path]:
    """The captures that --captures names; ValueError or FileNotFoundError where there is none."""
    captures: list[Path] = []
    for folder in map(Path, filter(None, text.split(","))):
        if not folder.exists():
            raise FileNotFoundError(f"{folder} does not exist (--captures)")
        inner = [f for f in sorted(folder.glob("[!.]*")) if f.is_dir()]
        names = {f.name for f in inner}
        alone = not folder.is_dir() or "images" in names or "sparse" in names or not inner
        alone = alone or any(f.is_file() for f in folder.iterdir())
        captures += [folder] if alone else inner
    return captures


def load_captures(
    captures: list[Path],
    processed: list[ProcessedScene | ChunkedScene],
    own: Data,
    size: int,
    patch: int,
) -> tuple[list[PosedPhotos | ProcessedPhotos], list[HeldOut]]:
    """Photos to train on, and all with those that are held out."""
    everything: list[PosedPhotos | ProcessedPhotos] = []
    remarks = logging.getLogger("scenes")
    if len(captures) > MOST_TOLD:
        log.info("%d captures: `python -m scenes CAPTURE` tells about one", len(captures))
        remarks.setLevel(logging.WARNING)
    for path in ProgressBar(captures, "captures", unit="capture", delay=3):
        scene = scenes.load(path, data_factor=own.data_factor, progress=False)
        every = range(len(scene))
        everything.append(PosedPhotos.from_scene(scene, every, size, patch, path.name))
    remarks.setLevel(logging.NOTSET)
    everything += [ProcessedPhotos(s, tuple(range(len(s))), size, patch) for s in processed]
    train_on, held_out = [], []
    for whole in everything:
        held_out.append(HeldOut(whole, tuple(range(0, len(whole), own.test_every))))
        train_on.append(whole.without(held_out[-1].views))
    count = sum(len(held.views) for held in held_out)
    if count > own.num_samples_eval:
        places = np.linspace(0, count - 1, own.num_samples_eval).round().astype(int)
        flat = [(i, view) for i, held in enumerate(held_out) for view in held.views]
        some = [flat[i] for i in places]
        held_out = [
            replace(held, asked=tuple(v for j, v in some if j == i))
            for i, held in enumerate(held_out)
        ]
    return train_on, held_out


def load_features(own: Losses, device: torch.device, backbones: Path | None) -> nn.Module | None:
    """The network that compares images [N,3,H,W] in [0,1]; ValueError where it cannot be had."""
    if own.features == "none" or own.perceptual == 0:
        return None
    if own.features == "vgg19":
        return load_vgg19(own.vgg19).to(device)
    perceptual, reason = load_perceptual(device, backbones)
    if perceptual is None:
        raise ValueError(f"{reason} Or take --features=none")
    return InUnitRange(perceptual)


class InUnitRange(nn.Module):
    """LPIPS of images in [0,1]."""

    def __init__(self, network: Perceptual) -> None:
        super().__init__()
        self.network = network

    def forward(self, prediction: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """LPIPS, mean over the batch."""
        return self.network(2 * prediction - 1, 2 * truth - 1)
