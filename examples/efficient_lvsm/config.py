# Settings as the original has them: a YAML file, then `a.b = value` on the command line.
from __future__ import annotations

import difflib
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)

DEFAULTS = Path(__file__).parent / "configs" / "Efficient-LVSM.yaml"
ABOUT = "settings are --config FILE.yaml and then `a.b = value`; every key is in"

# Keys that are read past, because what they ask for is not there to be chosen.
IDLE = {
    *("model.class_name", "model.repa_encoder_type", "model.align_resolution", "demo"),
    *("model.image_tokenizer.source", "model.image_tokenizer.model_source_dir"),
    *("model.transformer.attention_arch", "training.dataset_name", "training.dataset_len"),
    *("training.image_folder", "training.num_views", "training.shuffle_input_views"),
    *("training.prefetch_factor", "training.num_threads", "training.gradient_checkpoint"),
    *("training.checkpoint_every", "training.reset_training_state", "training.vis_every"),
    *("training.wandb_project", "training.wandb_exp_name", "training.log_file"),
    *("training.backup_code", "training.use_rel_pose", "training.use_view_masking"),
    *("training.view_mask_strategy", "training.view_min", "training.view_max"),
    *("inference.if_inference", "inference.use_incremental_inference"),
}
# Keys of which only some values are possible.
ONLY = {
    "model.image_tokenizer.type": ("none", None, "dinov2", "dinov3"),
    "model.image_tokenizer.in_channels": (9,),
    "model.target_pose_tokenizer.in_channels": (6,),
    "model.transformer.special_init": (True,),
    "model.transformer.use_qk_norm": (True,),
    "model.transformer.encoder_init": ("torch_default", "depth"),
    "model.freeze_repa_encoder": (True,),
    "training.square_crop": (True,),
    "training.center_crop": (True,),
    "training.scene_scale_factor": (1.35,),
    "training.scheduler_type": ("constant", "cosine", "linear"),
    "training.amp_dtype": ("bf16", "fp16"),
    "training.losses.proj_loss_type": ("sl1", "l2", "cos"),
    "inference.render_video_config.traj_type": ("interpolate",),
}


@dataclass(frozen=True)
class Config:
    """Settings by key, such as "training.lr"."""

    values: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def section(self, name: str) -> dict[str, Any]:
        """The settings below a key, by the rest of their names."""
        return {
            key.removeprefix(f"{name}."): value
            for key, value in self.values.items()
            if key.startswith(f"{name}.")
        }


def show_help(text: str) -> None:
    """Print a command's help and leave, if it is asked for."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        sys.stdout.write(f"{text.strip()}\n")
        sys.exit(0)


def read_config(arguments: Sequence[str]) -> Config:
    """The settings of a command line. ValueError or FileNotFoundError, in a sentence, for an
    unknown key, or a value that cannot be."""
    file, overrides = split_arguments(arguments)
    defaults = read_yaml(DEFAULTS)
    values = dict(defaults)
    for source, settings in ((str(file), read_yaml(file)), ("the command line", overrides)):
        for key, value in settings.items():
            values[key] = check_value(key, value, defaults, source)
    idle = sorted(
        key for key, value in values.items() if is_idle(key) and value != defaults.get(key)
    )
    if idle:
        log.warning("without effect here: %s", ", ".join(idle))
    return Config(values)


def split_arguments(arguments: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """--config FILE, and the settings after it."""
    rest = list(arguments)
    if "--config" not in rest[:-1]:
        raise ValueError(
            f"give --config FILE.yaml, such as {DEFAULTS.relative_to(DEFAULTS.parents[1])}"
        )
    at = rest.index("--config")
    file = Path(rest[at + 1])
    del rest[at : at + 2]
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist (--config)")
    text = re.sub(r"\s*\n?=\n?\s*", "=", "\n".join(rest))  # `a = b` came as three arguments
    overrides = {}
    for line in filter(None, text.split("\n")):
        key, equals, value = line.partition("=")
        if not equals or not key or key.startswith("-"):
            raise ValueError(f"{line!r} is no setting: give them as training.lr=1e-4")
        overrides[key] = parse_value(value, line)
    return file, overrides


def parse_value(text: str, line: str) -> Any:
    """A value as YAML has it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{line!r}: the value cannot be read as YAML") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A file's settings by key. ValueError, naming it, for what is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read as YAML ({' '.join(str(error).split())})"
        ) from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings, but {type(content).__name__}")
    return dict(flatten(content))


def flatten(content: Mapping, prefix: str = ""):
    """(key, value) of nested settings."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def is_idle(key: str) -> bool:
    """Whether a key is read past."""
    return key in IDLE or key.partition(".")[0] in IDLE


def check_value(key: str, value: Any, defaults: Mapping[str, Any], source: str) -> Any:
    """The value in its default's type. ValueError for another key or kind of value."""
    if is_idle(key) and key not in defaults:
        return value
    if key not in defaults:
        near = difflib.get_close_matches(key, defaults, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{source}: there is no setting {key}{hint} ({ABOUT} {DEFAULTS.name})")
    default = defaults[key]
    if isinstance(default, int | float) and not isinstance(default, bool):
        with suppress(ValueError):  # YAML takes 4e-4 for text
            value = float(value) if isinstance(value, str) else value
    if key in ONLY:
        if value not in ONLY[key]:
            names = " or ".join(
                str(v).lower() if isinstance(v, bool) else str(v) for v in ONLY[key]
            )
            raise ValueError(f"{source}: {key}={value} cannot be had here, only {names}")
        return value
    kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str, type(None))}
    expected = kinds.get(type(default), (object,))
    mistaken = isinstance(value, bool) and default is not None and type(default) is not bool
    if mistaken or not isinstance(value, expected):
        raise ValueError(f"{source}: {key}={value} must be {describe(default)}")
    return value


def describe(default: Any) -> str:
    """What values a default stands for."""
    return {bool: "true or false", int: "a whole number", float: "a number"}.get(
        type(default), "text"
    )
