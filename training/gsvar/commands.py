# What VQVAE_train.py, VAR_train.py and VAE_train.py do with their flags.
from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from evaluation.metrics import Metrics
from models.gsvar import GSVAR, loading
from runtime.seeds import mix_seeds
from training import distributed
from training.gsvar import building
from training.gsvar.bridge import BridgeStage
from training.gsvar.codec import OriginalLayout, Prefix
from training.gsvar.flags import BridgeFlags, LatentFlags, TokenizerFlags, TrainFlags
from training.gsvar.latent import LatentStage
from training.gsvar.tokenizer import TokenizerStage
from training.gsvar.validation import FixerValidation, TokenizerValidation
from training.lists import check_triplet_flags, load_entries
from training.losses import ImageObjective, PixelLoss, load_perceptual
from training.run import Recipe, Run, plain_args, train
from training.stage import Stage
from training.triplets import TripletDataset
from training.validation import Validation

log = logging.getLogger(__name__)

REVIVE_EVERY = 100  # steps after which an unused code of a new tokenizer is revived
PROJECTS = {"vqvae": "vqvae", "ar": "var", "vae": "vae"}  # at Weights & Biases
# what a resumed run may change without a warning, besides the engine's
FREE = {"vfast", "tfast", "var_pretrain_path", "vae_model_path"}


def train_tokenizer(flags: TokenizerFlags) -> None:
    """Stage 0. Raises ValueError and OSError, in one sentence, for what the user can mend."""
    own = flags.tokenizing
    if flags.model.preset is None and not flags.model.vae_model_path:
        raise ValueError(
            "name the tokenizer's sizes (--preset small, say), and with them weights to start from "
            "if there are any (--vae_model_path)"
        )
    flags = replace(flags, model=replace(flags.model, preset=flags.model.preset or "original-d24"))
    check_flags(flags)

    def build(run: Run) -> Stage:
        model = building.new_model(flags.model, mix_seeds(run.seed, 8))
        if flags.model.vae_model_path is not None and run.checkpoint is None:
            path = check_exists(flags.model.vae_model_path, "--vae_model_path")
            model = loading.with_vqvae(model, path, "cpu", torch.float32)
            model.vqvae.bridge = None
        new = flags.model.vae_model_path is None
        revive = own.revive_every
        stage = TokenizerStage(
            load_model(run, flags, model),
            build_objective(run.device, flags, perceptual=own.perceptual),
            total=run.number_of(run.total),
            dtype=run.dtype,
            commitment=own.commitment,
            continuous=own.continuous,
            revive_every=(REVIVE_EVERY if new else 0) if revive is None else revive,
            new=new,
            gan=own.gan,
            gan_from=round(run.number_of(own.gan_start * run.total)),
            seed=run.seed,
        )
        return stage.to(run.device)

    window = building.read_config(flags.model).image_size
    start(flags, "vqvae", window, build, pictures=own.images)


def train_latent(flags: LatentFlags) -> None:
    """Stage 1. Raises as `train_tokenizer`."""
    check_flags(flags)
    own, data = flags.latent, flags.triplets
    model = building.starting_model(flags.model, mix_seeds(flags.optimization.seed or 0, 8))
    if model.has_bridge:
        log.info("stage 1 leaves the VAE-bridge of %s out", flags.model.var_pretrain_path)
        model.vqvae.bridge = None

    def build(run: Run) -> Stage:
        seed = mix_seeds(run.seed, 8)
        building.prepare_latent(model, flags.model, flags.optimization.checkpointing, seed)
        return LatentStage(
            load_model(run, flags, model),
            dtype=run.dtype,
            label_smoothing=own.ls,
            diffusion_weight=own.diffusion_weight,
            diffusion_repeats=own.diffusion_repeats,
            both_views=own.use_ref_view_loss,
            drop_references=data.ref_drop if data.use_ref_drop else 0.0,
            corrupt=own.corrupt,
            cache=data.cache_dir,
        )

    start(choose_warped(model, flags), "ar", model.config.image_size, build)


def train_bridge(flags: BridgeFlags) -> None:
    """Stage 2. Raises as `train_tokenizer`."""
    check_flags(flags)
    own, data = flags.bridging, flags.triplets
    model = building.starting_model(flags.model, mix_seeds(flags.optimization.seed or 0, 8))
    if not model.has_bridge:
        torch.manual_seed(mix_seeds(flags.optimization.seed or 0, 9))
        model.vqvae.add_bridge(identity=own.bridge_start == "identity")
        model.vqvae.bridge.to(memory_format=torch.channels_last)

    def build(run: Run) -> Stage:
        return BridgeStage(
            load_model(run, flags, model),
            build_objective(run.device, flags, gram=own.use_gram_loss, pixel_loss=own.pixel_loss),
            dtype=run.dtype,
            train_decoder=own.train_decoder,
            both_views=own.use_ref_view_loss,
            drop_references=data.ref_drop if data.use_ref_drop else 0.0,
            own_tokens=own.own_tokens,
            harm=own.harm,
            gram_from=round(run.number_of(own.pgwp * run.order.steps)),
            cache=data.cache_dir,
        )

    alpha = model.config.render_alpha
    start(choose_warped(model, flags), "vae", model.config.image_size, build, alpha=alpha)


def start(
    flags: TrainFlags,
    prefix: Prefix,
    window: tuple[int, int],
    build: Callable[[Run], Stage],
    *,
    pictures: Path | None = None,
    alpha: bool = False,
) -> None:
    """Train a stage on windows of a height and width. pictures: a folder to learn from instead of
    triplets; alpha: of the renders, where the stage reads it."""
    groups = [getattr(flags, name) for name in vars(flags)]

    def data(device: torch.device) -> tuple[TripletDataset, Validation]:
        return load_data(flags, prefix, window, pictures, alpha, device)

    recipe = Recipe(
        prefix=prefix,
        codec=OriginalLayout(prefix),
        data=data,
        build=build,
        args=plain_args(*groups),
        fixed=(*building.sizes_flags(flags.model), "train_decoder"),
        free=FREE,
        workers=flags.triplets.workers,
        project=PROJECTS[prefix],
        about=f"window {window[1]}x{window[0]}",
    )
    train(recipe, flags.optimization, flags.run)


def load_data(
    flags: TrainFlags,
    prefix: Prefix,
    window: tuple[int, int],
    pictures: Path | None,
    alpha: bool,
    device: torch.device,
) -> tuple[TripletDataset, Validation]:
    """Training set and validation of the flags' triplets, or of a folder of pictures."""
    own = flags.triplets
    references = own.num_refs if own.use_ref and prefix != "vqvae" else 0
    learnt, held, note = load_entries(own, references=references, alpha=alpha, pictures=pictures)
    options = {"references": references, "warped": bool(own.use_warped), "alpha": alpha}
    options["skip_bad"] = own.skip_bad
    augmented = {"hflip": own.hflip, "photometric": own.photometric, "crops": own.crops}
    dataset = TripletDataset(learnt, window, **options, fit=own.fit, **augmented)
    metrics = Metrics("alex", device, flags.optimization.backbones)
    if metrics.lpips_reason and distributed.rank() == 0:
        log.info("validation is judged by PSNR: %s", metrics.lpips_reason)
    if prefix == "vqvae":
        return dataset, TokenizerValidation(held, metrics, **options, window=window, note=note)
    mode = "tile" if own.fit == "crop" else "resize"
    bridge = prefix == "vae"
    return dataset, FixerValidation(held, metrics, mode=mode, bridge=bridge, note=note, **options)


def load_model(run: Run, flags: TrainFlags, model: GSVAR) -> GSVAR:
    """The model on the run's device, with its newest checkpoint's weights, compiled as asked."""
    model = run.load_weights(model)
    building.compile_parts(model, flags.optimization.tfast, flags.optimization.vfast)
    return model


def build_objective(
    device: torch.device,
    flags: TrainFlags,
    *,
    perceptual: bool = True,
    gram: bool = False,
    pixel_loss: PixelLoss = "l1",
) -> ImageObjective:
    """What pictures are trained by; a line of the log describes it."""
    network, reason = None, "It was not asked for."
    if perceptual:
        network, reason = load_perceptual(device, flags.optimization.backbones)
    objective = ImageObjective(network, gram, reason, pixel_loss)
    log.info("%s", objective.describe())
    return objective


def choose_warped(model: GSVAR, flags: TrainFlags) -> TrainFlags:
    """The flags with the kind of references that the model was made for, if they name none."""
    data = flags.triplets
    if data.use_warped is not None:
        return flags
    return replace(flags, triplets=replace(data, use_warped=model.config.warped_references))


def check_flags(flags: TrainFlags) -> None:
    """Raise ValueError for flags of GS-VAR's that make no run, before any weights are read."""
    if isinstance(flags, BridgeFlags) and not 0 <= flags.bridging.harm < math.inf:
        raise ValueError(f"--harm={flags.bridging.harm} must not be negative")
    if flags.model.preset is not None:
        building.read_config(flags.model)
    if flags.optimization.fsdp and (flags.model.use_lora or not isinstance(flags, LatentFlags)):
        raise ValueError("--fsdp is for stage 1, without --ema and --use_lora")
    check_triplet_flags(flags.triplets)


def check_exists(path: Path, flag: str) -> Path:
    """The path; FileNotFoundError naming the flag if there is no such file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file ({flag})")
    return path
