# The flags that the training of any system has: its data, the optimization, and what is written.
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Triplets:
    """The training data."""

    json_path: str = "data/data.json"
    """Triplets (data/README.md), or several lists of them, comma-separated; train and val. The
    entries of LIST.json*3 are sampled three times as often."""
    root: Path | None = None
    """Folder below which the list's pictures lie, where its absolute paths are of another place."""
    use_ref: bool = True
    """Give reference views to the model."""
    num_refs: int = 1
    """References of an entry, nearest first; entries must have as many."""
    use_warped: bool | None = None
    """Take the references that were warped into the render's view (gen_data_json.py --warp);
    default: where the model was made for those."""
    use_ref_drop: bool = False
    """Some of the steps are without references, as an inference without them is."""
    ref_drop: float = 0.5
    """The share of those steps."""
    fit: Literal["crop", "squash"] = "crop"
    """Random windows of the trained size, the reference's around the same content where cameras
    are known; or the whole picture squashed to that size, as the original did."""
    hflip: bool = False
    """Mirror half of the triplets, all their pictures together."""
    photometric: float = 0.0
    """Share of the triplets whose pictures are all made darker or brighter alike: what is black is
    not always a hole."""
    crops: int = 0
    """Take only so many different windows of each picture (0: a new one each time)."""
    cache_dir: Path | None = None
    """Cache the outputs of the frozen networks here; requires --crops or --fit=squash."""
    skip_bad: bool = False
    """Leave out entries with missing or unreadable pictures, and say how many."""
    workers: int = 8
    """Processes that read pictures, at most one a core."""
    num_samples_eval: int = 100
    """Pictures of a validation."""


@dataclass(frozen=True)
class Optimization:
    """How long, how fast, in which precision."""

    batch_size: int = 4
    """Samples a process, at a time."""
    glb_batch_size: int = 0
    """Samples of a step over all processes and accumulations, instead of --batch_size."""
    ac: int = 1
    """Batches whose gradients make one step."""
    ep: int = 250
    """Epochs."""
    steps: int | None = None
    """Steps in all, instead of --ep."""
    tblr: float = 5e-5
    """Learning rate; times --ac, as in the original."""
    tlr: float | None = None
    """Learning rate as it is."""
    twd: float = 0.05
    """Weight decay at the start."""
    twde: float = 0.05
    """Weight decay at the end (cosine in between)."""
    tclip: float = 2.0
    """Norm that gradients are clipped to (0: not)."""
    tskip: float = 0.0
    """Leave out a step whose gradients are not finite, or of a norm above --tclip times this (0:
    never; the run ends where the loss is not finite)."""
    sche: str = "lin0"
    """Learning rate after warm-up: lin0 (30 % constant, then linear), lin (15 %), lin00, cos, exp,
    lin0.4 and the like."""
    wp: float = 0.1
    """Warm-up in epochs."""
    warmup: int | None = None
    """Warm-up in steps, instead of --wp."""
    wp0: float = 0.005
    """Learning rate at the start of the warm-up, as a factor."""
    wpe: float = 0.01
    """Learning rate at the end, as a factor."""
    opt: Literal["adamw", "adam"] = "adamw"
    """Optimizer."""
    beta1: float = 0.9
    """Its decay of the gradients' mean."""
    beta2: float = 0.95
    """Its decay of their squares' mean."""
    afuse: bool = True
    """Its fused kernel."""
    fp16: Literal[0, 1, 2] = 1
    """0 float32, 1 float16 with loss scaling (float32 on a CPU), 2 bfloat16 (float32 on a
    CPU without instructions for it)."""
    force_bf16: bool = False
    """Compute in bfloat16 with --fp16=2 even where the processor only emulates it, some 300 times
    slower."""
    tf32: bool = True
    """TF32 for what stays in float32 on CUDA."""
    ema: float = 0.0
    """Decay of an average of the weights, 0.999 say, which is then what is saved and validated."""
    fsdp: bool = False
    """Shard parameters and optimizer over the processes (FSDP2), for models that do not fit."""
    seed: int | None = None
    """Of everything random (default 0)."""
    device: str | None = None
    """cuda or cpu (default: a GPU if there is one)."""
    backbones: Path | None = None
    """Folder with alexnet_features.safetensors and vgg16_features.safetensors for LPIPS, where
    torchvision's weights are neither there nor to be downloaded (or set LPIPS_BACKBONES; `python -m
    evaluation.backbones fetch` gets them)."""


@dataclass(frozen=True)
class Run:
    """What is written, and when."""

    exp_name: str = "VARSR"
    """Name of the run."""
    results: Path = Path("results")
    """Everything goes to <results>/<exp_name>."""
    resume: bool = True
    """Go on with the run that is there; --resume=False removes its checkpoints and logs."""
    eval_freq: int = 10000
    """Validate every so many samples."""
    eval_epochs: float | None = None
    """Validate every so many epochs, instead of --eval_freq."""
    save_minutes: float = 10.0
    """Save at least this often; a killed run goes on from there."""
    keep: int = 2
    """Checkpoints of earlier validations to keep, besides the last and the best."""
    minutes: float | None = None
    """Stop after this time, saved; the same command goes on."""
    log_every: int = 10
    """Steps between lines of the logs."""
    wandb_flag: bool = False
    """Log to Weights & Biases too (pip install wandb)."""
    wandb_id: str | None = None
    """W&B run to resume (default: this run's own)."""
    wandb_mode: Literal["online", "offline"] = "online"
    """offline writes to <results>/<exp_name>/wandb; also where there is no network."""
