# A run of any system's stage, from the flags of training/flags.py: processes, precision, folder,
# order, loop.
from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from runtime.lock import locked_folder
from runtime.precision import choose_dtype
from training import distributed, flags
from training.flags import Optimization
from training.journal import Journal
from training.loop import Loop, Settings
from training.lr_schedule import LRSchedule
from training.order import Order, Place
from training.run_folder import RunFolder
from training.stage import Codec, Samples, Stage
from training.validation import Validation

log = logging.getLogger(__name__)

DTYPES = {0: torch.float32, 1: torch.float16, 2: torch.bfloat16}
# what a resumed run may change without a warning
FREE = {"resume", "minutes", "save_minutes", "keep", "log_every", "workers", "device", "exp_name"}
FREE |= {"results", "wandb_flag", "wandb_id", "wandb_mode", "num_samples_eval"}
FREE |= {
    "eval_freq",
    "eval_epochs",
    "afuse",
    "tf32",
    "cache_dir",
    "force_bf16",
    "backbones",
    "root",
}


@dataclass(frozen=True)
class Recipe:
    """What a system brings to a run of one of its stages."""

    prefix: str
    """Begins the names of the checkpoints."""
    codec: Codec
    data: Callable[[torch.device], tuple[Samples, Validation]]
    """What is trained and validated on; called once the processes know each other."""
    build: Callable[[Run], Stage]
    """The stage on run.device; its first network must have been through run.load_weights."""
    args: Mapping[str, object]
    """Plain values of the flags by name: checkpoints hold them, a resumed run compares them."""
    fixed: Collection[str] = ()
    """Flags that make another model: a run cannot go on with others."""
    free: Collection[str] = ()
    """Flags that a resumed run may change without a warning, besides FREE."""
    workers: int = 0
    """Processes that read samples, at most one a core."""
    project: str = "training"
    """At Weights & Biases."""
    about: str = ""
    """More for the log's first line."""


class Run:
    """What is known of a run before its stage is built."""

    def __init__(
        self,
        recipe: Recipe,
        optimization: Optimization,
        folder: RunFolder,
        samples: int,
        device: torch.device,
    ):
        self.recipe, self.folder, self.device = recipe, folder, device
        self.seed = optimization.seed or 0
        self.checkpoint = folder.newest()
        """File and content of the checkpoint that is gone on from, if there is one."""
        self.dtype = choose_precision(optimization, device)
        self.order = build_order(optimization, samples, self.seed)
        self.place, self.total = plan_run(optimization, self.order, self.checkpoint)
        """Where the run begins, and its length in steps of the present size."""

    def number_of(self, step: float) -> float:
        """The number that a step has among those made, counted in steps of the present size: the
        same, unless the run made steps of another size before."""
        return step + self.place.step - self.order.progress(self.place)

    def load_weights(self, model: nn.Module) -> nn.Module:
        """The model on the device, with the newest checkpoint's weights if there is one."""
        model = model.to(self.device)
        if self.checkpoint is not None:
            file, content = self.checkpoint
            self.recipe.codec.load_weights(model, content, file)
        return model


def train(recipe: Recipe, optimization: Optimization, options: flags.Run) -> None:
    """Train one stage of a system, or go on with it, as the flags say.

    Raises ValueError and OSError, in one sentence, for what the user can mend.
    """
    check_flags(optimization, options)
    with ExitStack() as stack:
        device = stack.enter_context(distributed.process_group(optimization.device))
        if distributed.rank() > 0:
            logging.getLogger().setLevel(logging.ERROR)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = optimization.tf32
            torch.backends.cudnn.allow_tf32 = optimization.tf32
        dataset, validation = recipe.data(device)
        folder = RunFolder(options.results / options.exp_name, recipe.prefix, options.keep)
        stack.enter_context(
            distributed.on_first(lambda: locked_folder(folder.path, "take another --exp_name"))
        )
        if not options.resume and distributed.rank() == 0:
            folder.clear()
        if distributed.world_size() > 1:
            dist.barrier()
        run = Run(recipe, optimization, folder, len(dataset), device)
        args = dict(recipe.args) | {"bs": run.order.samples}
        if run.checkpoint is not None:
            compare_args(run.checkpoint[1].get("args", {}), args, recipe, folder.path)
        stage = recipe.build(run)
        trainable = sum(p.numel() for p in stage.parameters() if p.requires_grad)
        log.info(
            "%s: %d entries, %d steps of %d samples, %s%s on %s, %.1f M parameters to train",
            *(folder.path, len(dataset), math.ceil(run.total), run.order.samples),
            *(f"{recipe.about}, " if recipe.about else "", str(run.dtype).removeprefix("torch.")),
            *(device, trainable / 1e6),
        )

        def open_journal(start: int) -> Journal:
            return Journal(
                folder.path,
                name=options.exp_name,
                settings=args,
                start_step=start,
                project=recipe.project,
                wandb=options.wandb_flag,
                wandb_id=options.wandb_id,
                wandb_mode=options.wandb_mode,
            )

        Loop(
            stage,
            dataset,
            run.order,
            loop_settings(run, optimization, options),
            folder,
            codec=recipe.codec,
            validation=validation,
            journal=open_journal,
            args=args,
            device=device,
        ).run()
        if validation.note:
            log.warning("%s", validation.note)
        log.info("checkpoints, metrics.csv and training.png are in %s", folder.path)


def loop_settings(run: Run, optimization: Optimization, options: flags.Run) -> Settings:
    """The loop's settings from the flags."""
    rate, warmup = optimization.tlr, optimization.warmup
    if warmup is None:
        warmup = min(round(optimization.wp * run.order.steps), int(run.total // 2))
    schedule = LRSchedule(
        optimization.sche,
        run.total,
        warmup,
        optimization.wp0,
        optimization.wpe,
        optimization.twd,
        optimization.twde,
    )
    every = options.eval_freq // run.order.samples
    if options.eval_epochs is not None:
        every = round(options.eval_epochs * run.order.steps)
    return Settings(
        rate=optimization.ac * optimization.tblr if rate is None else rate,
        schedule=schedule,
        clip=optimization.tclip,
        skip=optimization.tskip,
        kind=optimization.opt,
        betas=(optimization.beta1, optimization.beta2),
        fused=optimization.afuse,
        scaled=run.dtype == torch.float16,
        ema=optimization.ema,
        fsdp=optimization.fsdp,
        eval_every=max(1, every),
        log_every=options.log_every,
        save_minutes=options.save_minutes,
        minutes=options.minutes,
        workers=min(run.recipe.workers, os.cpu_count() or 1, 8),
        seed=run.seed,
    )


def choose_precision(optimization: Optimization, device: torch.device) -> torch.dtype:
    """The precision of --fp16 on a device; float32, and a line of the log, where it has none
    such."""
    dtype = DTYPES[optimization.fp16]
    if dtype == torch.float16 and device.type == "cpu":
        log.info("--fp16=1 is float32 on a CPU; --fp16=2 (bfloat16) may be faster")
        return torch.float32
    return choose_dtype(dtype, device, force_bf16=optimization.force_bf16)


def build_order(optimization: Optimization, samples: int, seed: int) -> Order:
    """The samples of each step; ValueError if there are too few."""
    count, batch = distributed.world_size(), optimization.batch_size
    if optimization.glb_batch_size:
        batch, rest = divmod(optimization.glb_batch_size, count * optimization.ac)
        if rest or not batch:
            raise ValueError(
                f"--glb_batch_size={optimization.glb_batch_size} cannot be divided among "
                f"{count} processes and --ac={optimization.ac}"
            )
    order = Order(samples, batch, count, distributed.rank(), optimization.ac, seed)
    if order.steps == 0:
        raise ValueError(
            f"{samples} samples are fewer than the {order.samples} of a step: lower --batch_size "
            "or --ac"
        )
    return order


def plan_run(
    optimization: Optimization, order: Order, checkpoint: tuple[Path, Mapping] | None
) -> tuple[Place, float]:
    """Where a run begins, and how many steps of the order's size it has in all: --ep epochs, or
    --steps of them; with the same --steps as before, as many samples as before."""
    whole = optimization.steps or optimization.ep * order.steps
    if checkpoint is None:
        return Place(), whole
    content = checkpoint[1]
    state, args = content["resume"], content.get("args", {})
    place = order.resume(state, args.get("bs"))
    if optimization.steps is None:
        return place, whole
    if args.get("steps") == optimization.steps:
        if "end" in state:
            return place, order.progress(Place(0, *state["end"]))
        before = order.of_size(args.get("bs", order.samples))
        if before.steps:
            return place, order.progress(before.place(optimization.steps))
    return place, whole


def check_flags(optimization: Optimization, options: flags.Run) -> None:
    """Raise ValueError for flags that make no run."""
    if not options.exp_name or Path(options.exp_name).name != options.exp_name:
        raise ValueError(f"--exp_name={options.exp_name!r} must be a folder's name")
    least = {"batch_size": (optimization, 1), "ac": (optimization, 1), "ep": (optimization, 1)}
    least |= {"tclip": (optimization, 0), "log_every": (options, 1), "keep": (options, 0)}
    least |= {"tskip": (optimization, 0)}
    least |= {"eval_freq": (options, 1)}
    for name, (group, value) in least.items():
        if getattr(group, name) < value:
            raise ValueError(f"--{name}={getattr(group, name)} must be at least {value}")
    if optimization.steps is not None and optimization.steps < 1:
        raise ValueError(f"--steps={optimization.steps} must be at least 1")
    for name in ("tblr", "tlr"):
        rate = getattr(optimization, name)
        if rate is not None and not 0 <= rate < math.inf:
            raise ValueError(f"--{name}={rate} must be a number of at least 0")
    for name in ("ema", "beta1", "beta2"):
        value = getattr(optimization, name)
        if not 0 <= value < 1:
            raise ValueError(f"--{name}={value} must lie between 0 and 1")
    if optimization.warmup is not None and optimization.warmup < 0:
        raise ValueError(f"--warmup={optimization.warmup} must be at least 0")
    if optimization.tskip and not optimization.tclip:
        raise ValueError(f"--tskip={optimization.tskip} is a factor of --tclip, which is 0")
    if optimization.fsdp and optimization.ema:
        raise ValueError("--fsdp has no --ema: leave one of them out")
    if optimization.fsdp and int(os.environ.get("WORLD_SIZE", 1)) < 2:
        raise ValueError("--fsdp divides a model among processes: start it with torchrun")


def plain_args(*groups: object) -> dict[str, object]:
    """Groups of flags as plain values by name, for `Recipe.args`; those that are None left out."""
    values = {name: value for group in groups for name, value in asdict(group).items()}
    values = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    return {k: v for k, v in values.items() if v is not None}


def compare_args(before: Mapping, now: Mapping, recipe: Recipe, folder: Path) -> None:
    """Log which settings have changed since a checkpoint; ValueError for those that make another
    model."""
    names = (before.keys() | now.keys()) - FREE - set(recipe.free)
    changed = {n: (before.get(n), now.get(n)) for n in sorted(names) if before.get(n) != now.get(n)}
    other = [name for name in changed if name in recipe.fixed]
    if "ema" in changed and not all(changed["ema"]):  # what is saved is the average, or is not
        other.append("ema")
    if other:
        name = other[0]
        raise ValueError(
            f"the run in {folder} was made with --{name}={changed[name][0]}, not "
            f"{changed[name][1]}: take another --exp_name, or --resume=False to start over"
        )
    for name, (old, new) in changed.items():
        log.warning("going on with --%s=%s; the run had %s so far", name, new, old)
