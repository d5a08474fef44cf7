# The flags of Efficient-LVSM's training.
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtime.flags import parse_flags
from training.flags import Optimization, Run

ABOUT = """
Train Efficient-LVSM on the photos of captures: from some views of a scene it learns to draw others.

  python -m scenes.procedural data/lvsm/town --seed 0 --views 120 --width 128 --height 128

  python -m training.efficient_lvsm --captures=data/lvsm --preset=mini --least=6 --most=24
  --batch_size=4 --steps=20000 --tblr=4e-4 --exp_name=mini

Checkpoints (lvsm-ckpt-last.pth, lvsm-ckpt-best.pth, of the original's layout), metrics.csv,
training.png and pictures of the validations go to results/<exp_name>. The same command goes on with
a stopped run. Booleans are written --flag=True.
"""


@dataclass(frozen=True)
class Data:
    """The captures, and which of their photos are looked at."""

    captures: str = ""
    """Folders of captures, or folders of such folders, comma-separated; their photos are in the
    order of the walk."""
    lists: str = ""
    """Folders of RealEstate10K's chunks (*.torch), or lists of scenes that
    examples/efficient_lvsm/utils/process_data.py made (full_list.txt), comma-separated; instead of
    --captures or beside them."""
    test_every: int = 8
    """Every N-th photo is held out for the validation."""
    data_factor: int = 1
    """Photos at 1/N of their size, before they are resized to the network's."""
    views: int = 8
    """Photos of a sample."""
    targets: int = 6
    """Of these so many are asked for."""
    target_has_input: bool = True
    """Inputs may be among the targets, as in the original; else those after them are."""
    inputs_least: int = 2
    """Fewest photos that the network sees; each step draws their number."""
    inputs_most: int = 2
    """Most photos that it sees."""
    least: int = 25
    """Frames between the first and the last of a sample, at least."""
    most: int = 192
    """The same, at most."""
    repeats: int = 1
    """Samples of each scene in an epoch."""
    workers: int = 4
    """Processes that make samples, at most one a core."""
    num_samples_eval: int = 40
    """Held-out photos of a validation, evenly chosen."""


@dataclass(frozen=True)
class Model:
    """Which network is trained."""

    preset: str = "original"
    """Sizes of a new network: original, mini or tiny."""
    depth: int | None = None
    """Layers of the encoder, and as many of the decoder, instead of the preset's."""
    width: int | None = None
    """Channels, instead of the preset's."""
    head_dim: int | None = None
    """Channels of an attention head, instead of the preset's."""
    patch: int | None = None
    """Pixels along each side of a token, instead of the preset's."""
    image_size: int | None = None
    """Side of the squares in pixels (default: the preset's, or that of --load)."""
    load: Path | None = None
    """Weights to start from."""
    depth_init: bool = True
    """New weights of deeper layers of the decoder are smaller."""
    encoder_init: Literal["torch_default", "depth"] = "torch_default"
    """New weights of the encoder; depth: as the decoder's."""
    recompute: bool = False
    """Compute each layer again in the backward pass instead of keeping what it needs: less memory,
    a third more time."""
    compile: bool = False
    """torch.compile the network: a minute at first, then faster on a GPU."""


@dataclass(frozen=True)
class Losses:
    """What it learns by."""

    mse: float = 1.0
    """Weight of the squared error."""
    perceptual: float = 0.5
    """Weight of features' differences."""
    features: Literal["vgg19", "lpips", "none"] = "lpips"
    """Of VGG19, as the original (--vgg19); of VGG16, as LPIPS compares them (--backbones); or
    none."""
    vgg19: Path | None = None
    """Weights of VGG19: the original's imagenet-vgg-verydeep-19.mat, or torchvision's
    vgg19-dcbb9e9d.pth, whose features are brought to the same scale."""


@dataclass(frozen=True)
class Alignment:
    """Tokens that are to resemble a frozen teacher's (REPA)."""

    repa: str = ""
    """Which: block of the teacher - layer of the network, both counted from 1, then i (of inputs)
    or t (of targets) for one of them only: 8-2, 8-3t, 48-23 (pairs 4-2 and 8-3). Empty: none."""
    teacher: Path | None = None
    """DINOv2 or DINOv3: a folder as Hugging Face has it (config.json, model.safetensors), or a
    published file, such as dinov2_vitb14_pretrain.pth."""
    repa_weight: float = 0.5
    """Weight in the loss."""
    repa_kind: Literal["sl1", "l2", "cos"] = "sl1"
    """Smooth L1, squared difference, or negative cosine."""
    projector_dim: int = 2048
    """Channels inside the projectors, which learn with the network."""


@dataclass(frozen=True)
class Flags:
    """All groups."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    losses: Losses = field(default_factory=Losses)
    alignment: Alignment = field(default_factory=Alignment)
    optimization: Optimization = field(default_factory=Optimization)
    run: Run = field(default_factory=Run)


def parse(arguments: list[str]) -> Flags:
    """The flags of a command line."""
    return parse_flags(Flags, arguments, "python -m training.efficient_lvsm", ABOUT)
