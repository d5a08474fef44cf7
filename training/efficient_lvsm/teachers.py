# Frozen teachers of REPA (arXiv 2410.06940): DINOv2 and DINOv3, from folders as Hugging Face has
# them (config.json, model.safetensors) or from the files that they were published as.
from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.efficient_lvsm.dino_files import read_file

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Kind(NamedTuple):
    """A kind of teacher: its class in the library, the final norm there, and the side in pixels of
    the pictures that it looks at."""

    name: str
    norm: str
    side: int


KINDS = {
    "dinov2": Kind("Dinov2Model", "layernorm", 336),
    "dinov3_vit": Kind("DINOv3ViTModel", "norm", 512),
}


class Teacher(nn.Module):
    """Patch tokens of some blocks, counted from 1, before any final norm. Frozen; no further block
    is computed than the last one asked for."""

    def __init__(self, network: nn.Module, side: int) -> None:
        super().__init__()
        self.network, self.side = network.eval().requires_grad_(False), side
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def width(self) -> int:
        """Channels of its tokens."""
        return self.network.config.hidden_size

    @torch.no_grad()
    def forward(
        self, images: Tensor, blocks: Collection[int], grid: tuple[int, int]
    ) -> Mapping[int, Tensor]:
        """Tokens [N,h w,C] of images [N,3,H,W] in [0,1] by block, resized to a grid (h, w)."""
        sized = F.interpolate(images, (self.side, self.side), mode="bicubic", align_corners=False)
        pixels = ((sized - self.mean) / self.std).to(self.network.dtype)
        states = self.network(pixels, output_hidden_states=True).hidden_states
        side = self.side // self.network.config.patch_size
        tokens = {}
        for block in blocks:
            patches = states[block][:, -side * side :]  # the class and registers come first
            planes = patches.transpose(1, 2).unflatten(2, (side, side)).float()
            planes = F.interpolate(planes, grid, mode="bicubic", align_corners=False)
            tokens[block] = planes.flatten(2).transpose(1, 2)
        return tokens


def load_teacher(path: Path, blocks: Collection[int]) -> Teacher:
    """The teacher in a folder or published file, up to the last of the blocks.

    ValueError or FileNotFoundError, naming it, where there is none."""
    path = Path(path)
    config, weights = read_file(path) if path.is_file() else (read_config(path), None)
    kind, depth = config["model_type"], config["num_hidden_layers"]
    if kind not in KINDS:
        raise ValueError(f"{path} is a {kind}, not dinov2 or dinov3_vit (--teacher)")
    for block in sorted(blocks):
        if not 1 <= block <= depth:
            raise ValueError(f"--repa asks for block {block} of {path}, which has 1 to {depth}")
    return Teacher(make_network(path, config, weights, max(blocks)), KINDS[kind].side)


def read_config(folder: Path) -> dict:
    """The config.json of a folder."""
    file = folder / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no config.json (--teacher): name a folder of facebook/dinov2-base or "
            "facebook/dinov3-vitb16-pretrain-lvd1689m, as Hugging Face has it, or a published file"
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return config | {n: config[n] for n in ("model_type", "num_hidden_layers")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no teacher's ({error}) (--teacher)") from None


def make_network(
    path: Path, config: dict, weights: dict[str, Tensor] | None, depth: int
) -> nn.Module:
    """The library's network of a config with its first `depth` blocks and without its final norm;
    weights: None for those of the folder.

    ValueError where some are missing or are no safetensors."""
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "--repa needs the package transformers: pip install transformers"
        ) from None
    kind = KINDS[config["model_type"]]
    if not hasattr(transformers, kind.name):
        raise ValueError("--repa needs transformers 4.56 or newer: pip install -U transformers")
    if weights is None and not (path / "model.safetensors").is_file():
        raise FileNotFoundError(f"{path} has no model.safetensors (--teacher)")
    network_class = getattr(transformers, kind.name)
    try:
        sizes = network_class.config_class.from_dict(config)
        sizes.num_hidden_layers = depth
        with silence(transformers.utils.logging):  # it tells of the blocks that are left out
            network, about = network_class.from_pretrained(
                path if weights is None else None,
                config=sizes,
                state_dict=weights,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read ({text}) (--teacher)") from None
    missing = sorted(name for name in about["missing_keys"] if "mask_token" not in name)
    if missing:
        raise ValueError(f"{path} lacks weights, such as {missing[0]} (--teacher)")
    # before 5.0 the library gives the last block's output of DINOv3 after this norm only
    setattr(network, kind.norm, nn.Identity())
    return network


@contextmanager
def silence(logging: ModuleType) -> Iterator[None]:
    """Without the library's warnings and progress bars."""
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
