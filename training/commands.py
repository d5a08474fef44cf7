# What VQVAE_train.py, VAR_train.py and VAE_train.py do with their flags.
from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist

from evaluation.metrics import Metrics
from fixers.gsvar import GSVARFixer
from models.gsvar import GSVAR, loading
from runtime.files import make_writable_folder
from runtime.seeds import mix_seeds
from training import building, distributed, weights
from training.bridging import BridgeStage
from training.flags import BridgeFlags, LatentFlags, TokenizerFlags, TrainFlags
from training.journal import Journal
from training.latent import LatentStage
from training.loop import Loop, Settings
from training.losses import ImageObjective, PixelLoss, load_perceptual
from training.order import Order
from training.run_folder import RunFolder
from training.schedule import Schedule
from training.stages import Stage
from training.tokenizing import TokenizerStage
from training.triplets import TripletDataset, folder_images, usable
from training.validation import Answer, Validation, by_fixer, by_tokenizer
from triplets import manifest
from triplets.manifest import Triplet

log = logging.getLogger(__name__)

DTYPES = {0: torch.float32, 1: torch.float16, 2: torch.bfloat16}
REVIVED = 100  # steps after which an unused code of a new tokenizer is revived
# what a run may change when it goes on, without a word
FREE = {"resume", "minutes", "save_minutes", "keep", "log_every", "workers", "device", "exp_name"}
FREE |= {"results", "wandb_flag", "wandb_id", "wandb_mode", "num_samples_eval", "eval_freq"}
FREE |= {"vfast", "tfast", "afuse", "tf32", "var_pretrain_path", "vae_model_path", "cache_dir"}


def train_tokenizer(flags: TokenizerFlags) -> None:
    """Stage 0. Raises ValueError and OSError, in one sentence, for what the user can mend."""
    own = flags.tokenizing
    if flags.model.preset is None and not flags.model.vae_model_path:
        raise ValueError(
            "name the tokenizer's sizes (--preset small, say), and with them weights to start from "
            "if there are any (--vae_model_path)"
        )
    flags = replace(flags, model=replace(flags.model, preset=flags.model.preset or "original-d24"))

    def make(run: Running) -> Stage:
        model = building.new_model(flags.model, mix_seeds(run.seed, 8))
        if flags.model.vae_model_path is not None and run.found is None:
            path = existing(flags.model.vae_model_path, "--vae_model_path")
            model = loading.with_vqvae(model, path, "cpu", torch.float32)
            model.vqvae.bridge = None
        new = flags.model.vae_model_path is None
        revive = own.revive_every
        stage = TokenizerStage(
            run.placed(model),
            run.objective(perceptual=own.perceptual),
            total=run.total,
            dtype=run.dtype,
            commitment=own.commitment,
            continuous=own.continuous,
            revive_every=(REVIVED if new else 0) if revive is None else revive,
            new=new,
            gan=own.gan,
            gan_from=round(own.gan_start * run.total),
            seed=run.seed,
        )
        return stage.to(run.device)

    def answer(model: GSVAR) -> Answer:
        return by_tokenizer(model.vqvae, model)

    sizes = building.config_of(flags.model).image_size
    train(flags, "vqvae", "vqvae", sizes, make, answer, pictures=own.images)


def train_latent(flags: LatentFlags) -> None:
    """Stage 1. Raises as `train_tokenizer`."""
    own, data = flags.latent, flags.triplets
    model = building.starting_model(flags.model, mix_seeds(flags.optimisation.seed or 0, 8))
    if model.has_bridge:
        log.info("stage 1 leaves the VAE-bridge of %s out", flags.model.var_pretrain_path)
        model.vqvae.bridge = None

    def make(run: Running) -> Stage:
        seed = mix_seeds(run.seed, 8)
        building.prepare_latent(model, flags.model, flags.optimisation.checkpointing, seed)
        return LatentStage(
            run.placed(model),
            dtype=run.dtype,
            label_smoothing=own.ls,
            diffusion_weight=own.diffusion_weight,
            diffusion_repeats=own.diffusion_repeats,
            both_views=own.use_ref_view_loss,
            drop_references=data.ref_drop if data.use_ref_drop else 0.0,
            corrupt=own.corrupt,
            cache=data.cache_dir,
        )

    flags = as_made_for(model, flags)
    train(flags, "ar", "var", model.config.image_size, make, fixed_by(flags, bridge=False))


def train_bridge(flags: BridgeFlags) -> None:
    """Stage 2. Raises as `train_tokenizer`."""
    own, data = flags.bridging, flags.triplets
    model = building.starting_model(flags.model, mix_seeds(flags.optimisation.seed or 0, 8))
    if not model.has_bridge:
        torch.manual_seed(mix_seeds(flags.optimisation.seed or 0, 9))
        model.vqvae.add_bridge(identity=own.bridge_start == "identity")
        model.vqvae.bridge.to(memory_format=torch.channels_last)

    def make(run: Running) -> Stage:
        return BridgeStage(
            run.placed(model),
            run.objective(True, own.use_gram_loss, own.pixel_loss),
            dtype=run.dtype,
            train_decoder=own.train_decoder,
            both_views=own.use_ref_view_loss,
            drop_references=data.ref_drop if data.use_ref_drop else 0.0,
            own_tokens=own.own_tokens,
            harm=own.harm,
            gram_from=round(own.pgwp * run.order.steps),
            cache=data.cache_dir,
        )

    flags = as_made_for(model, flags)
    train(
        flags,
        "vae",
        "vae",
        model.config.image_size,
        make,
        fixed_by(flags, bridge=True),
        alpha=model.config.render_alpha,
    )


def as_made_for(model: GSVAR, flags: TrainFlags) -> TrainFlags:
    """The flags with the kind of references that the model was made for, if they name none."""
    data = flags.triplets
    if data.use_warped is not None:
        return flags
    return replace(flags, triplets=replace(data, use_warped=model.config.warped_references))


def fixed_by(flags: TrainFlags, bridge: bool) -> Callable[[GSVAR], Answer]:
    """Validation by the fixer as it will be used."""
    mode = "tile" if flags.triplets.fit == "crop" else "resize"

    def answer(model: GSVAR) -> Answer:
        return by_fixer(GSVARFixer(model.eval(), mode=mode, bridge=bridge))

    return answer


class Running:
    """What is known of a run when its stage is made."""

    def __init__(
        self, flags: TrainFlags, prefix: str, device: torch.device, entries: int, folder: RunFolder
    ):
        optimisation = flags.optimisation
        self.flags, self.device, self.folder = flags, device, folder
        self.seed = optimisation.seed or 0
        self.found = folder.newest()
        self.dtype = DTYPES[optimisation.fp16]
        if self.dtype == torch.float16 and device.type == "cpu":
            log.info("--fp16=1 is float32 on a CPU; --fp16=2 (bfloat16) may be faster")
            self.dtype = torch.float32
        self.order = ordered(flags, entries, self.seed)
        self.total = optimisation.steps or optimisation.ep * self.order.steps
        if self.total < 1:
            raise ValueError("--ep and --steps leave nothing to do: give at least 1")

    def placed(self, model: GSVAR) -> GSVAR:
        """The model on the device, with the newest checkpoint's weights if there is one."""
        model = model.to(self.device)
        if self.found is not None:
            file, content = self.found
            weights.put(model, content, file)
        optimisation = self.flags.optimisation
        building.compiled(model, optimisation.tfast, optimisation.vfast)
        return model

    def objective(
        self, perceptual: bool, gram: bool = False, pixel_loss: PixelLoss = "l1"
    ) -> ImageObjective:
        """What pictures are judged by in training; said once."""
        network, reason = None, "It was not asked for."
        if perceptual:
            network, reason = load_perceptual(self.device)
        objective = ImageObjective(network, gram, reason, pixel_loss)
        log.info("%s", objective.describe())
        return objective


def train(
    flags: TrainFlags,
    prefix: str,
    project: str,
    window: tuple[int, int],
    make: Callable[[Running], Stage],
    answer: Callable[[GSVAR], Answer],
    *,
    pictures: Path | None = None,
    alpha: bool = False,
) -> None:
    """A run of one stage, from its flags; `alpha`: of the renders, where the stage reads it."""
    optimisation, own = flags.optimisation, flags.run
    checked(flags)
    with distributed.group(optimisation.device) as device:
        if distributed.rank() > 0:
            logging.getLogger().setLevel(logging.ERROR)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = optimisation.tf32
            torch.backends.cudnn.allow_tf32 = optimisation.tf32
        dataset, validation = data(flags, prefix, window, pictures, alpha, device)
        folder = RunFolder(own.results / own.exp_name, prefix, own.keep)
        if not own.resume and distributed.rank() == 0:
            folder.clear()
        if distributed.world() > 1:
            dist.barrier()
        run = Running(flags, prefix, device, len(dataset), folder)
        args = plain_args(flags, run)
        if run.found is not None:
            compare(run.found[1].get("args", {}), args, flags)
        make_writable_folder(folder.path)
        stage = make(run)
        settings = Settings(
            rate=(
                optimisation.ac * optimisation.tblr
                if optimisation.tlr is None
                else optimisation.tlr
            ),
            schedule=Schedule(
                optimisation.sche,
                run.total,
                min(round(optimisation.wp * run.order.steps), run.total // 2),
                optimisation.wp0,
                optimisation.wpe,
                optimisation.twd,
                optimisation.twde,
            ),
            clip=optimisation.tclip,
            kind=optimisation.opt,
            fused=optimisation.afuse,
            scaled=run.dtype == torch.float16,
            ema=optimisation.ema,
            eval_every=max(1, own.eval_freq // run.order.samples),
            log_every=own.log_every,
            save_minutes=own.save_minutes,
            minutes=own.minutes,
            workers=min(flags.triplets.workers, os.cpu_count() or 1, 8),
            seed=run.seed,
        )
        log.info(
            "%s: %d entries, %d steps of %d samples, window %dx%d, %s on %s, %.1f M parameters "
            "to train",
            *(folder.path, len(dataset), run.total, run.order.samples, window[1], window[0]),
            *(str(run.dtype).removeprefix("torch."), device, trainable(stage) / 1e6),
        )

        def journal(start: int) -> Journal:
            return Journal(
                folder.path,
                name=own.exp_name,
                settings=args,
                start_step=start,
                project=project,
                wandb=own.wandb_flag,
                wandb_id=own.wandb_id,
                wandb_mode=own.wandb_mode,
            )

        Loop(
            stage,
            dataset,
            run.order,
            settings,
            folder,
            validate=lambda model: validation(answer(model)),
            judged_by=validation.judged_by,
            journal=journal,
            args=args,
            device=device,
            fsdp=optimisation.fsdp,
        ).run()
        log.info("checkpoints, metrics.csv and training.png are in %s", folder.path)


def data(
    flags: TrainFlags,
    prefix: str,
    window: tuple[int, int],
    pictures: Path | None,
    alpha: bool,
    device: torch.device,
) -> tuple[TripletDataset, Validation]:
    """Training set and validation of the flags' triplets, or of a folder of pictures."""
    own = flags.triplets
    references = own.num_refs if own.use_ref and prefix != "vqvae" else 0
    options = {"references": references, "warped": bool(own.use_warped), "alpha": alpha}
    chosen = {**options, "skip_bad": own.skip_bad}
    if pictures is not None:
        found = folder_images(pictures)
        every = max(2, len(found) // max(1, min(own.num_samples_eval, len(found) // 10)))
        learnt = [t for i, t in enumerate(found) if i % every] or found
        held = found[::every]
    else:
        learnt = listed(own.json_path, ("train",))
        try:
            held = listed(own.json_path, ("val", "test"))
        except ValueError:
            log.warning("%s has no val split: validating on training entries", own.json_path)
            held = learnt
    learnt = usable(learnt, **chosen)
    held = usable(evenly(held, own.num_samples_eval), **chosen)
    dataset = TripletDataset(
        learnt,
        window,
        **chosen,
        fit=own.fit,
        hflip=own.hflip,
        photometric=own.photometric,
        crops=own.crops,
    )
    metrics = Metrics("alex", device)
    if metrics.lpips_reason and distributed.rank() == 0:
        log.info("validation is judged by PSNR: %s", metrics.lpips_reason)
    cut = window if prefix == "vqvae" else None
    return dataset, Validation(held, metrics, **chosen, window=cut)


def listed(path: str, splits: tuple[str, ...]) -> list[Triplet]:
    """The lists' entries; whether their pictures are there is looked at later. In training those
    of FILE*3 count three times. Raises ValueError and OSError."""
    files = [part.strip().partition("*") for part in path.split(",")]
    wrong = [file for file, star, times in files if star and not (times.isdigit() and int(times))]
    if wrong:
        raise ValueError(f"--json_path: {wrong[0]}*N wants a number of at least 1 behind the star")
    found = manifest.read(",".join(file for file, _, _ in files), splits, check=False)
    for file, star, times in files:
        if star and "train" in splits:
            found += manifest.read(file, splits, check=False) * (int(times) - 1)
    return found


def evenly(triplets: list[Triplet], count: int) -> list[Triplet]:
    """At most `count` of them, spread over the list."""
    count = min(count, len(triplets))
    return [triplets[i * len(triplets) // count] for i in range(count)]


def ordered(flags: TrainFlags, entries: int, seed: int) -> Order:
    """The samples of each step; ValueError if there are too few."""
    optimisation, world = flags.optimisation, distributed.world()
    batch = optimisation.batch_size
    if optimisation.glb_batch_size:
        batch, rest = divmod(optimisation.glb_batch_size, world * optimisation.ac)
        if rest or not batch:
            raise ValueError(
                f"--glb_batch_size={optimisation.glb_batch_size} cannot be divided among "
                f"{world} processes and --ac={optimisation.ac}"
            )
    order = Order(entries, batch, world, distributed.rank(), optimisation.ac, seed)
    if order.steps == 0:
        raise ValueError(
            f"{flags.triplets.json_path}: {entries} samples are fewer than the {order.samples} of "
            "a step: lower --batch_size or --ac"
        )
    return order


def checked(flags: TrainFlags) -> None:
    """ValueError for flags that make no run."""
    own, run, data = flags.optimisation, flags.run, flags.triplets
    if not run.exp_name or Path(run.exp_name).name != run.exp_name:
        raise ValueError(f"--exp_name={run.exp_name!r} must be a folder's name")
    at_least = {
        "batch_size": (own, 1),
        "ac": (own, 1),
        "log_every": (run, 1),
        "num_refs": (data, 1),
    }
    if isinstance(flags, BridgeFlags) and not 0 <= flags.bridging.harm < math.inf:
        raise ValueError(f"--harm={flags.bridging.harm} must not be negative")
    if not 0 <= data.photometric <= 1:
        raise ValueError(f"--photometric={data.photometric} must lie in 0 to 1")
    at_least |= {"keep": (run, 0), "crops": (data, 0), "num_samples_eval": (data, 1)}
    at_least |= {"eval_freq": (run, 1), "workers": (data, 0), "ep": (own, 1), "tclip": (own, 0)}
    for name, (group, least) in at_least.items():
        if getattr(group, name) < least:
            raise ValueError(f"--{name}={getattr(group, name)} must be at least {least}")
    if own.steps is not None and own.steps < 1:
        raise ValueError(f"--steps={own.steps} must be at least 1")
    for name in ("tblr", "tlr"):
        rate = getattr(own, name)
        if rate is not None and not 0 <= rate < math.inf:
            raise ValueError(f"--{name}={rate} must be a number of at least 0")
    if not 0 <= own.ema < 1:
        raise ValueError(f"--ema={own.ema} must lie between 0 and 1")
    if data.cache_dir is not None and not data.crops and data.fit == "crop":
        raise ValueError(
            "--cache_dir keeps a fixed set of windows: say how many of each picture (--crops 4)"
        )
    if own.fsdp and (own.ema or flags.model.use_lora or not isinstance(flags, LatentFlags)):
        raise ValueError("--fsdp is for stage 1, without --ema and --use_lora")
    if own.fsdp and int(os.environ.get("WORLD_SIZE", 1)) < 2:
        raise ValueError("--fsdp divides a model among processes: start it with torchrun")


def plain_args(flags: TrainFlags, run: Running) -> dict:
    """What checkpoints tell of the run: plain values by flag name."""
    values = {k: v for group in asdict(flags).values() for k, v in group.items()}
    values = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    return {k: v for k, v in values.items() if v is not None} | {"bs": run.order.samples}


def compare(before: dict, now: dict, flags: TrainFlags) -> None:
    """Say which settings have changed since a checkpoint; ValueError for those that make another
    model."""
    names = (before.keys() | now.keys()) - FREE
    changed = {n: (before.get(n), now.get(n)) for n in sorted(names) if before.get(n) != now.get(n)}
    sizes = (*building.named_sizes(flags.model), "train_decoder")
    other = [name for name in changed if name in sizes]
    if "ema" in changed and not all(changed["ema"]):  # what is saved is the average, or is not
        other.append("ema")
    if other:
        name = other[0]
        raise ValueError(
            f"the run in {flags.run.results / flags.run.exp_name} was made with --{name}="
            f"{changed[name][0]}, not {changed[name][1]}: take another --exp_name, or "
            "--resume=False to start over"
        )
    for name, (old, new) in changed.items():
        log.warning("going on with --%s=%s; the run had %s so far", name, new, old)


def existing(path: Path, flag: str) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file ({flag})")
    return path


def trainable(stage: torch.nn.Module) -> int:
    return sum(p.numel() for p in stage.parameters() if p.requires_grad)
