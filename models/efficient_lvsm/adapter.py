# The original's checkpoints, and how ours are stored. Foreign names live here only.
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from models.checkpoints.renamed import RenamedLayout, count_blocks, read_patch
from models.checkpoints.system import System
from models.efficient_lvsm.config import EfficientLVSMConfig
from models.efficient_lvsm.model import EfficientLVSM
from models.layers.rays import CHANNELS

TITLE = "Efficient-LVSM"
RULES = [
    (r"^photo_tokens\.", "rgbp_tokenizer.1."),
    (r"^target_tokens\.", "target_pose_tokenizer.1."),
    (r"^colors\.", "image_token_decoder.1."),
    (r"^encoder\.(\d+)\.attention\.", r"input_self_attn_blocks.\1.attn."),
    (r"^encoder\.", "input_self_attn_blocks."),
    (r"^decoder\.(\d+)\.attention\.", r"self_cross_blocks.\1.self_attn."),
    (r"^decoder\.(\d+)\.cross\.", r"self_cross_blocks.\1.cross_attn."),
    (r"^decoder\.", "self_cross_blocks."),
    (r"attn\.(qkv|q|kv)\.weight$", r"attn.to_\1.weight"),
    (r"attn\.proj\.", "attn.fc."),
    (r"attn\.([qk])_weight$", r"attn.\1_norm.weight"),
    (r"\.mlp\.", ".mlp.mlp."),
    (r"^repa\.projectors\.([a-z]+)_(\d+)_(\d+)\.", r"repa_projector.\1.\2.\3."),  # in training
]
# of losses; with its teacher and projectors of REPA
DROPPED = ("loss_computer.", "repa_encoder.", "repa_projector.")
IMAGE_SIZE = "config.image_size"  # ours alone: the original reads past it


def read_config(tensors: Mapping[str, Tensor]) -> EfficientLVSMConfig:
    """The sizes that the original's tensors tell."""
    tokens = tensors["target_pose_tokenizer.1.weight"]
    patch = read_patch(tensors["image_token_decoder.1.weight"])
    kinds = {channels: kind for kind, channels in reversed(CHANNELS.items())}
    channels = tokens.shape[1] // patch**2
    if channels not in kinds:
        raise ValueError(f"its rays have {channels} channels, not {' or '.join(map(str, kinds))}")
    return EfficientLVSMConfig(
        depth=count_blocks(tensors, "self_cross_blocks"),
        width=tokens.shape[0],
        head_dim=len(tensors["self_cross_blocks.0.self_attn.q_norm.weight"]),
        patch=patch,
        plucker=kinds[channels],
        **({"image_size": int(tensors[IMAGE_SIZE])} if IMAGE_SIZE in tensors else {}),
    )


def build(config: EfficientLVSMConfig, names: Collection[str] = ()) -> EfficientLVSM:
    """A model without memory for its weights (on the meta device), to be filled."""
    with torch.device("meta"):
        return EfficientLVSM(config)


class Layout(RenamedLayout):
    """The original's files, and in ours a tensor more, which says the size of the pictures."""

    def export(self, model: EfficientLVSM) -> dict:
        """A model as the original's scripts store it."""
        content = super().export(model)
        content["model"][IMAGE_SIZE] = torch.tensor(model.config.image_size)
        return content


LAYOUT = Layout(TITLE, RULES, "rgbp_tokenizer.1.weight", read_config, build, DROPPED, (IMAGE_SIZE,))
SYSTEM = System(
    format="efficient-lvsm",
    title=TITLE,
    config=EfficientLVSMConfig,
    build=build,
    adapter=LAYOUT,
    foreign_name=LAYOUT.foreign_name,
)
