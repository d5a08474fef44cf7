# From the flags of a training script to its model: new, or what some weights are.
from __future__ import annotations

import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import torch

from models.gsvar import GSVAR, GSVARConfig, loading
from models.gsvar.config import PRESETS
from models.gsvar.init import initialise
from models.gsvar.lora import add_lora
from models.var.scales import ScaleSchedule
from runtime.arguments import naming_flags
from training.gsvar.flags import Model

log = logging.getLogger(__name__)

DEFAULT_VQVAE = Path("checkpoints/VQVAE.pth")
SCHEDULES = {  # names of the original's --pn
    "256": "1_2_3_4_5_6_8_10_13_16",
    "512": "1_2_3_4_6_9_13_18_24_32",
    "1024": "1_2_3_4_5_7_9_12_16_21_27_36_48_64",
}
COMPILED = {1: "reduce-overhead", 2: "max-autotune", 3: "default"}


def read_config(flags: Model) -> GSVARConfig:
    """The sizes that --preset and the flags beside it name; ValueError where they make no model."""
    name = flags.preset
    if name in PRESETS:
        config = PRESETS[name]()
    elif name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file (--preset)")
        try:
            sizes = json.loads(path.read_text())
            known = [field.name for field in fields(GSVARConfig)]
            unknown = [name for name in sizes if name not in known]
            if unknown:
                raise ValueError(f"{unknown[0]!r} is none of {', '.join(known)}")
            config = GSVARConfig(**sizes)
            if config.depth < 1:
                raise ValueError("depth must be at least 1")
            loading.empty(config, bridge=False)  # what is wrong shows where it is built
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            raise ValueError(f"--preset={path}: {error}") from None
    else:
        names = ", ".join(PRESETS)
        raise ValueError(f"--preset={name}: choose {names}, or a .json of sizes")
    changes = {
        "depth": flags.depth,
        "patch_nums": SCHEDULES.get(flags.pn, flags.pn),
        "ref_attends": flags.ref_attends,
        "shared_adaln": flags.saln,
        "qk_norm": flags.anorm,
        "render_alpha": flags.render_alpha,
        "fine_width": flags.fine_width,
    }
    if flags.depth is not None and flags.depth < 1:
        raise ValueError(f"--depth={flags.depth} must be at least 1")
    if flags.pn is not None:
        parse_scales(flags.pn)
    return replace(config, **{k: v for k, v in changes.items() if v is not None})


def parse_scales(pn: str) -> ScaleSchedule:
    """The schedule of scales that --pn names."""
    try:
        return ScaleSchedule.of(SCHEDULES.get(pn, pn))
    except ValueError as error:
        raise ValueError(f"--pn={pn}: {error}") from None


def new_model(flags: Model, seed: int) -> GSVAR:
    """A model of --preset's sizes with fresh weights, its tokenizer too."""
    config = read_config(flags)
    torch.manual_seed(seed)
    model = GSVAR(config)
    deviation = None if flags.ini < 0 else flags.ini
    initialise(model, flags.alng, flags.aln, flags.hd, deviation)
    return model.to(memory_format=torch.channels_last)


def starting_model(flags: Model, seed: int) -> GSVAR:
    """The model that stage 1 or 2 starts from, in float32, nothing trainable: --preset's with the
    tokenizer of --vae_model_path, else that of --var_pretrain_path. Raises FileNotFoundError and
    ValueError, in one sentence that names file or flag."""
    if flags.preset is not None:
        vqvae = flags.vae_model_path or DEFAULT_VQVAE
        if not vqvae.is_file():
            raise FileNotFoundError(
                f"{vqvae}: no such file; a new transformer needs a trained VQ-VAE: train one with "
                "VQVAE_train.py and name it (--vae_model_path)"
            )
        model = new_model(flags, seed)
        model = loading.with_vqvae(model, vqvae, "cpu", torch.float32)
    else:
        model = load_pretrained(flags)
        check_schedule(flags, model.config)
        for name in ("saln", "anorm"):
            own = {"saln": model.config.shared_adaln, "anorm": model.config.qk_norm}[name]
            if getattr(flags, name) not in (None, own):
                raise ValueError(
                    f"--{name}={getattr(flags, name)}, but {flags.var_pretrain_path} has {own}"
                )
        if flags.render_alpha not in (None, model.config.render_alpha):
            if not flags.render_alpha or not model.config.warped_references:
                raise ValueError(
                    f"--render_alpha={flags.render_alpha}, but {flags.var_pretrain_path} has "
                    f"{model.config.render_alpha}"
                    + ("" if model.config.render_alpha else ", and its bridge no place for it")
                )
            model.read_alpha()
        if flags.fine_width not in (None, model.config.fine_width):
            add_fine_level(model, flags)
        if flags.ref_attends is not None:
            model.config = replace(model.config, ref_attends=flags.ref_attends)
    if flags.fusion_block_idx is not None:
        model.mix_in(flags.fusion_block_idx)
    return model


def add_fine_level(model: GSVAR, flags: Model) -> None:
    """Give the model --fine_width's last level; ValueError where it has another or no place."""
    try:
        model.add_fine(flags.fine_width)
    except ValueError as error:
        raise ValueError(
            f"--fine_width={flags.fine_width} and {flags.var_pretrain_path}: {error}"
        ) from None


def load_pretrained(flags: Model) -> GSVAR:
    """The weights of --var_pretrain_path, with --vae_model_path's tokenizer where that is needed
    or asked for."""
    path, vqvae = flags.var_pretrain_path, flags.vae_model_path
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; name the weights to start from (--var_pretrain_path), or start "
            f"anew with --preset ({', '.join(PRESETS)})"
        )
    if vqvae is None and DEFAULT_VQVAE.is_file():
        parts = loading.inspect(path)["parts"]
        if not any(part.startswith(("vae_local", "vqvae")) for part in parts):
            vqvae = DEFAULT_VQVAE
    with naming_flags(vqvae="--vae_model_path", base="--var_pretrain_path", depth="--depth"):
        return loading.load(path, vqvae=vqvae, depth=flags.depth)


def check_schedule(flags: Model, config: GSVARConfig) -> None:
    """ValueError if --pn is not the weights' schedule."""
    if flags.pn is None:
        return
    asked = parse_scales(flags.pn).text
    if asked != config.patch_nums:
        raise ValueError(
            f"--pn={flags.pn} is not the schedule of {flags.var_pretrain_path}, which is "
            f"{config.patch_nums}: leave --pn out"
        )


def prepare_latent(model: GSVAR, flags: Model, checkpointing: bool | None, seed: int = 0) -> None:
    """Make the transformer (or its low-rank factors, drawn from the seed) trainable."""
    if flags.lora_dropout:
        raise ValueError("--lora_dropout is not supported: leave it at 0")
    model.requires_grad_(True)
    if flags.use_lora:
        torch.manual_seed(seed)
        with naming_flags(targets="--lora_target_modules", rank="--lora_r"):
            add_lora(model, flags.lora_r, flags.lora_alpha, flags.lora_target_modules)
    model.vqvae.requires_grad_(False)
    on = model.config.depth >= 16 if checkpointing is None else checkpointing
    model.transformer.checkpointing = on


def compile_parts(model: GSVAR, transformer: int, vqvae: int) -> None:
    """torch.compile parts in place, as --tfast and --vfast say."""
    if transformer:
        for block in model.transformer.blocks:
            block.compile(mode=COMPILED[transformer])
    if vqvae:
        model.vqvae.encoder.compile(mode=COMPILED[vqvae])
        model.vqvae.decoder.compile(mode=COMPILED[vqvae])


def sizes_flags(flags: Model) -> list[str]:
    """Flags that make another model: a run cannot go on with others."""
    training = ("var_pretrain_path", "vae_model_path", "ini", "hd", "aln", "alng", "lora_dropout")
    return [f.name for f in fields(flags) if f.name not in training]
