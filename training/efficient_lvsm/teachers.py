# Frozen teachers of REPA (arXiv 2410.06940): DINOv2 and DINOv3, from folders as Hugging Face has
# them (config.json, model.safetensors).
from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDES = {"dinov2": 336, "dinov3_vit": 512}  # pixels of the pictures that they look at
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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


def load_teacher(folder: Path, blocks: Collection[int]) -> Teacher:
    """The teacher in a folder, up to the last of the blocks.

    ValueError or FileNotFoundError, naming it, for a folder that holds none."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} has no config.json (--teacher): name a folder of facebook/dinov2-base or "
            "facebook/dinov3-vitb16-pretrain-lvd1689m, as Hugging Face has it"
        )
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind, depth = config["model_type"], config["num_hidden_layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}/config.json is no teacher's ({error}) (--teacher)") from None
    if kind not in SIDES:
        raise ValueError(f"{folder} is a {kind}, not dinov2 or dinov3_vit (--teacher)")
    if max(blocks) > depth or min(blocks) < 1:
        raise ValueError(f"--repa asks for block {max(blocks)} of {folder}, which has {depth}")
    return Teacher(read_network(folder, max(blocks)), SIDES[kind])


def read_network(folder: Path, depth: int) -> nn.Module:
    """The library's network with its first `depth` blocks. ValueError where weights are missing or
    are no safetensors."""
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "--repa needs the package transformers: pip install transformers"
        ) from None
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} has no model.safetensors (--teacher)")
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # it tells of the blocks that are left out
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        config.num_hidden_layers = depth
        network, about = transformers.AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} cannot be read ({text}) (--teacher)") from None
    finally:
        transformers.logging.set_verbosity(level)
    missing = sorted(name for name in about["missing_keys"] if "mask_token" not in name)
    if missing:
        raise ValueError(f"{folder} lacks weights, such as {missing[0]} (--teacher)")
    return network
