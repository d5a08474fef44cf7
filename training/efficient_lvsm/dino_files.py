# DINOv2 and DINOv3 as they were published (dinov2_vitb14_pretrain.pth,
# dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth), for the networks of the library transformers.
from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from models.checkpoints.io import read
from models.checkpoints.renamed import count_blocks

HEAD = 64  # channels of an attention head, in all sizes that are read
UNUSED = re.compile(r"mask_token$|^rope_embed\.|\.bias_mask$")
RULES = {
    "dinov2": [
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.attn\.", ".attention.attention."),
    ],
    "dinov3_vit": [
        (r"^storage_tokens$", "embeddings.register_tokens"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings."),
        (r"^blocks\.", "layer."),
        (r"\.attn\.proj\.", ".attention.o_proj."),
        (r"\.attn\.", ".attention."),
        (r"\.fc1\.", ".up_proj."),
        (r"\.fc2\.", ".down_proj."),
    ],
}
BOTH = [(r"^cls_token$", "embeddings.cls_token"), (r"\.ls(\d)\.gamma$", r".layer_scale\1.lambda1")]
PARTS = {"dinov2": ("query", "key", "value"), "dinov3_vit": ("q_proj", "k_proj", "v_proj")}


def read_file(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What the library's config.json would say of a published file, and the weights in its names.

    DINOv2's position embeddings are then resized to the picture as the library does it; the
    original's code shifts them by a tenth of a patch. ValueError for another file."""
    content = read(path)[0]
    tensors = isinstance(content, Mapping) and all(isinstance(t, Tensor) for t in content.values())
    names = set(content) if tensors else set()
    kind = "dinov2" if "pos_embed" in names else "dinov3_vit"
    needed = {"patch_embed.proj.weight", "blocks.0.attn.qkv.bias", "blocks.0.mlp.fc1.weight"}
    needed.add("pos_embed" if kind == "dinov2" else "storage_tokens")
    if not needed <= names or "register_tokens" in names:
        raise ValueError(
            f"{path} is none of the published files that are read, such as "
            "dinov2_vitb14_pretrain.pth or dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth; else name "
            "a folder as Hugging Face has it (--teacher)"
        )
    weights = {}
    for name in names:
        if not UNUSED.search(name):
            weights |= rename(name, content[name], kind)
    return read_config(content, kind), weights


def read_config(content: Mapping[str, Tensor], kind: str) -> dict:
    """The sizes that tensors tell, in the library's words."""
    width, _, _, patch = content["patch_embed.proj.weight"].shape
    hidden = len(content["blocks.0.mlp.fc1.weight"])
    config = {
        "model_type": kind,
        "hidden_size": width,
        "num_hidden_layers": count_blocks(content, "blocks"),
        "num_attention_heads": max(1, width // HEAD),
        "patch_size": patch,
    }
    if kind == "dinov2":
        side = round((content["pos_embed"].shape[1] - 1) ** 0.5)
        return config | {"image_size": side * patch, "mlp_ratio": hidden // width}
    registers = content["storage_tokens"].shape[1]
    return config | {"intermediate_size": hidden, "num_register_tokens": registers}


def rename(name: str, tensor: Tensor, kind: str) -> dict[str, Tensor]:
    """A tensor under the library's name; queries, keys and values apart."""
    for pattern, replacement in BOTH + RULES[kind]:
        name = re.sub(pattern, replacement, name)
    if ".qkv." not in name:
        return {name: tensor}
    pieces = zip(PARTS[kind], tensor.chunk(3), strict=True)
    split = {name.replace("qkv", part): piece for part, piece in pieces}
    split.pop(name.replace("qkv.bias", "k_proj.bias"), None)  # DINOv3 masks it
    return split
