# The original's checkpoints, and how ours are stored. Foreign names live here only.
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from models.checkpoints.renamed import RenamedLayout, count_blocks, read_patch
from models.checkpoints.system import System
from models.lvsm.config import LVSMConfig
from models.lvsm.model import LVSM

TITLE = "LVSM (decoder-only)"
RULES = [
    (r"^photo_tokens\.", "image_tokenizer.1."),
    (r"^target_tokens\.", "target_pose_tokenizer.1."),
    (r"^norm_tokens\.", "transformer_input_layernorm."),
    (r"^norm\.", "image_token_decoder.0."),
    (r"^colors\.", "image_token_decoder.1."),
    (r"^blocks\.(\d+)\.attention\.", r"transformer_blocks.\1.attn."),
    (r"^blocks\.", "transformer_blocks."),
    (r"attn\.qkv\.weight$", "attn.to_qkv.weight"),
    (r"attn\.proj\.", "attn.fc."),
    (r"attn\.([qk])_weight$", r"attn.\1_norm.weight"),
    (r"\.mlp\.", ".mlp.mlp."),
]
DROPPED = ("loss_computer.",)


def read_config(tensors: Mapping[str, Tensor]) -> LVSMConfig:
    """The sizes that the original's tensors tell."""
    return LVSMConfig(
        depth=count_blocks(tensors, "transformer_blocks"),
        width=tensors["target_pose_tokenizer.1.weight"].shape[0],
        head_dim=len(tensors["transformer_blocks.0.attn.q_norm.weight"]),
        patch=read_patch(tensors["image_token_decoder.1.weight"]),
    )


def build(config: LVSMConfig, names: Collection[str] = ()) -> LVSM:
    """A model without memory for its weights (on the meta device), to be filled."""
    with torch.device("meta"):
        return LVSM(config)


LAYOUT = RenamedLayout(
    TITLE, RULES, "transformer_input_layernorm.weight", read_config, build, DROPPED
)
SYSTEM = System(
    format="lvsm",
    title=TITLE,
    config=LVSMConfig,
    build=build,
    adapter=LAYOUT,
    foreign_name=LAYOUT.foreign_name,
)
