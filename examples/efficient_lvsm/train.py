# Train Efficient-LVSM, as published:
#   torchrun --nproc_per_node 4 train.py --config configs/Efficient-LVSM.yaml training.lr=2e-4
from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from examples.efficient_lvsm.config import Config, read_config, show_help
from runtime.command import run_command

if TYPE_CHECKING:
    from training.efficient_lvsm.flags import Flags

ABOUT = """
Train Efficient-LVSM: python train.py --config configs/Efficient-LVSM.yaml, then settings of that
file as training.lr=2e-4 or `training.lr = 2e-4`; with several GPUs torchrun --nproc_per_node 4
train.py ...

The file says what each setting does. Checkpoints, metrics.csv, training.png and pictures of the
validations go to training.checkpoint_dir; the same command goes on with a stopped run. `python -m
training.efficient_lvsm --help` is the same training with flags.
"""
SCHEDULES = {"constant": "constant", "cosine": "cos", "linear": "lin00"}
PRECISIONS = {"fp16": 1, "bf16": 2}
# flags of the training -> the settings they come from
SETTINGS = {
    "exp_name": "training.checkpoint_dir",
    "tlr": "training.lr",
    "tblr": "training.lr",
    "batch_size": "training.batch_size_per_gpu",
    "ac": "training.grad_accum_steps",
    "ep": "training.train_epochs",
    "steps": "training.train_steps",
    "tclip": "training.grad_clip_norm",
    "tskip": "training.allowed_gradnorm_factor",
    "views": "training.num_input_views + num_target_views",
    "targets": "training.num_target_views",
    "inputs_least": "training.num_input_views",
    "inputs_most": "training.num_input_views",
    "least": "training.view_selector.min_frame_dist",
    "most": "training.view_selector.max_frame_dist",
    "load": "training.resume_ckpt",
    "width": "model.transformer.d",
    "depth": "model.transformer.n_layer",
    "head_dim": "model.transformer.d_head",
    "patch": "model.image_tokenizer.patch_size",
    "image_size": "model.image_tokenizer.image_size",
    "vgg19": "training.vgg19_path",
    "backbones": "training.backbones",
    "repa": "model.repa_config",
    "teacher": "model.image_tokenizer.model_path",
    "projector_dim": "model.projector_dim",
    "log_every": "training.print_every",
    "eval_freq": "training.checkpoint_every_epoch",
    "test_every": "training.test_every",
    "warmup": "training.warmup",
}


def make_flags(config: Config) -> Flags:
    """The training's flags. ValueError, naming the setting, for those that do not go together."""
    from training.efficient_lvsm.flags import Flags

    return Flags(
        data=make_data(config),
        model=make_model(config),
        losses=make_losses(config),
        alignment=make_alignment(config),
        optimization=make_optimization(config),
        run=make_run(config),
    )


def make_data(config: Config):
    """Which photos are looked at."""
    from training.efficient_lvsm.flags import Data

    own = config.section("training")
    inputs, targets = own["num_input_views"], own["num_target_views"]
    captures, lists = choose_source(own["dataset_path"])
    return Data(
        captures=captures,
        lists=lists,
        test_every=own["test_every"],
        views=inputs + targets,
        targets=targets,
        target_has_input=own["target_has_input"],
        inputs_least=2 if own["dynamic_input_view_num"] else inputs,
        inputs_most=4 if own["dynamic_input_view_num"] else inputs,
        least=own["view_selector.min_frame_dist"],
        most=own["view_selector.max_frame_dist"],
        workers=own["num_workers"],
        num_samples_eval=own["num_samples_eval"],
    )


def choose_source(text: str) -> tuple[str, str]:
    """The flags --captures and --lists for a path of the file: a list or a folder of chunks is of
    RealEstate10K, any other folder of captures. FileNotFoundError where there is nothing."""
    path = Path(text)
    if not path.exists():
        raise FileNotFoundError(
            f"training.dataset_path={path} does not exist: make it with utils/process_data.py, or "
            "name a folder of chunks or of captures"
        )
    if path.is_file() or any(path.glob("*.torch")):
        return "", str(path)
    return str(path), ""


def make_model(config: Config):
    """Which network is trained."""
    from training.efficient_lvsm.flags import Model

    own = config.section("model")
    tokens, others = own["image_tokenizer.patch_size"], own["target_pose_tokenizer.patch_size"]
    size, asked = own["image_tokenizer.image_size"], own["target_pose_tokenizer.image_size"]
    if (tokens, size) != (others, asked):
        raise ValueError(
            f"model.image_tokenizer has patches of {tokens} in {size} pixels, "
            f"model.target_pose_tokenizer of {others} in {asked}: they must be alike"
        )
    load = config["training.resume_ckpt"]
    sizes = {
        "depth": own["transformer.n_layer"],
        "width": own["transformer.d"],
        "head_dim": own["transformer.d_head"],
        "patch": tokens,
    }
    return Model(
        **(sizes if load is None else {}),
        image_size=size,
        load=None if load is None else Path(load),
        depth_init=own["transformer.depth_init"],
        encoder_init=own["transformer.encoder_init"],
        recompute=config["training.grad_checkpoint_every"] > 0,
        compile=config["training.use_compile"],
    )


def make_losses(config: Config):
    """What it learns by."""
    from training.efficient_lvsm.flags import Losses

    own = config.section("training.losses")
    vgg, lpips = own["perceptual_loss_weight"], own["lpips_loss_weight"]
    file = config["training.vgg19_path"]
    if vgg > 0 and lpips > 0:
        raise ValueError(
            "training.losses.perceptual_loss_weight and lpips_loss_weight: give one of them, the "
            "other 0"
        )
    if vgg > 0 and file is None:
        raise ValueError(
            "training.losses.perceptual_loss_weight needs training.vgg19_path=FILE; or take VGG16 "
            "as LPIPS compares it: training.losses.perceptual_loss_weight=0 "
            "training.losses.lpips_loss_weight=0.5"
        )
    return Losses(
        mse=own["l2_loss_weight"],
        perceptual=max(vgg, lpips),
        features="vgg19" if vgg > 0 else "lpips" if lpips > 0 else "none",
        vgg19=None if file is None else Path(file),
    )


def make_alignment(config: Config):
    """The teacher of REPA, if it is enabled."""
    from training.efficient_lvsm.flags import Alignment

    own, path = config.section("model"), config["model.image_tokenizer.model_path"]
    if not config["training.enable_repa"]:
        return Alignment()
    if own["image_tokenizer.type"] in (None, "none") or path is None:
        raise ValueError(
            "training.enable_repa needs model.image_tokenizer.type=dinov2 (or dinov3) and "
            "model.image_tokenizer.model_path=PATH of its folder or file"
        )
    return Alignment(
        repa=own["repa_config"],
        teacher=Path(path),
        repa_weight=config["training.losses.proj_loss_weight"],
        repa_kind=config["training.losses.proj_loss_type"],
        projector_dim=own["projector_dim"],
    )


def make_optimization(config: Config):
    """How long, how fast, in which precision."""
    from training.flags import Optimization

    own = config.section("training")
    backbones = own["backbones"]
    return Optimization(
        batch_size=own["batch_size_per_gpu"],
        ac=own["grad_accum_steps"],
        ep=own["train_epochs"],
        steps=own["train_steps"],
        tlr=own["lr"],
        twd=own["weight_decay"],
        twde=own["weight_decay"],
        beta1=own["beta1"],
        beta2=own["beta2"],
        tclip=own["grad_clip_norm"],
        tskip=own["allowed_gradnorm_factor"] if own["grad_clip_norm"] else 0,
        sche=SCHEDULES[own["scheduler_type"]],
        warmup=own["warmup"],
        wp0=0.0,
        wpe=0.0,
        fp16=PRECISIONS[own["amp_dtype"]] if own["use_amp"] else 0,
        tf32=own["use_tf32"],
        seed=own["seed"],
        backbones=None if backbones is None else Path(backbones),
    )


def make_run(config: Config):
    """What is written, and when."""
    from training.flags import Run

    own = config.section("training")
    folder = Path(own["checkpoint_dir"])
    hours, often = own["train_time"], own["checkpoint_every_time"]
    for name in ("train_time", "checkpoint_every_time", "checkpoint_every_epoch"):
        if own[name] is not None and own[name] <= 0:
            raise ValueError(f"training.{name}={own[name]} must be more than 0")
    if own["use_wandb"]:
        log_in(Path(own["api_key_path"]))
    return Run(
        exp_name=folder.name,
        results=folder.parent,
        eval_epochs=own["checkpoint_every_epoch"],
        save_minutes=60 * often,
        minutes=None if hours is None else 60 * hours,
        log_every=own["print_every"],
        wandb_flag=own["use_wandb"],
        wandb_mode="offline" if own["wandb_offline"] else "online",
    )


def log_in(path: Path) -> None:
    """Take the key of Weights & Biases from a file {wandb: KEY}, unless the environment has it."""
    import yaml

    if "WANDB_API_KEY" in os.environ:
        return
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist (training.api_key_path): write `wandb: KEY` into it, set "
            "WANDB_API_KEY, or leave training.use_wandb=false"
        )
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("wandb"), str):
        raise ValueError(f"{path} has no line `wandb: KEY` (training.api_key_path)")
    os.environ["WANDB_API_KEY"] = content["wandb"]


def main() -> None:
    """Train, or go on. Raises ValueError or OSError, naming the setting or file."""
    show_help(ABOUT)
    flags = make_flags(read_config(sys.argv[1:]))

    from training.efficient_lvsm.commands import train_views

    try:
        train_views(flags)
    except ValueError as error:
        raise ValueError(name_settings(str(error))) from None


def name_settings(text: str) -> str:
    """A message about flags, about the settings that they are made from."""
    return re.sub(r"--(\w+)", lambda flag: SETTINGS.get(flag[1], flag[0]), text)


if __name__ == "__main__":
    run_command(main)
