# The original's checkpoints: its tensor names and layout <-> ours. Foreign names live here only.
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from models.gsvar.config import GSVARConfig
from models.gsvar.model import GSVAR
from models.layers.lora import add_lora, merge_lora
from models.var.names import (
    TRANSFORMER_RULES,
    VQVAE_RULES,
    ZERO_BUFFER,
    count,
    read_vqvae_sizes,
    rename_state,
)
from models.var.scales import ScaleSchedule

# ours -> the original's, first match of each rule in order; applied to whole names
OWN_RULES = [
    (r"^prefix_position$", "pos_start"),
    (r"^prefix\.", "con_embedding."),
    (r"^label\.", "class_emb."),
    *TRANSFORMER_RULES,
    (r"^head_adaln\.", "head_nm.ada_lin."),
    (r"^prior\.", "render_prior."),  # ours alone
    (r"^refiner_norm\.", "decoder_norm."),
    (r"^refiner\.time\.", "diffloss.net.time_embed.mlp."),
    (r"^refiner\.condition\.", "diffloss.net.cond_embed."),
    (r"^refiner\.input\.", "diffloss.net.input_proj."),
    (r"^refiner\.blocks\.(\d+)\.norm\.", r"diffloss.net.res_blocks.\1.in_ln."),
    (r"^refiner\.blocks\.(\d+)\.modulation\.", r"diffloss.net.res_blocks.\1.adaLN_modulation.1."),
    (r"^refiner\.blocks\.(\d+)\.", r"diffloss.net.res_blocks.\1."),
    (r"^refiner\.modulation\.", "diffloss.net.final_layer.adaLN_modulation.1."),
    (r"^refiner\.output\.", "diffloss.net.final_layer.linear."),
]
BRIDGE = "cond_"  # in every name of the bridge
LORA = ".lora_"


@dataclass(frozen=True)
class Original:
    """What a file of the original holds."""

    transformer: dict[str, Tensor]
    vqvae: dict[str, Tensor]
    stage: int | None
    """1 or 2 for training checkpoints, None where the file does not tell."""
    epoch: int | None
    iteration: int | None
    args: dict
    settings: dict
    """The trainer's own configuration: patch_nums among it."""


def foreign_name(name: str) -> str:
    """The original's name of one of our tensors, without the file's outer layers."""
    inner = name.removeprefix("vqvae.")
    for pattern, replacement in VQVAE_RULES if inner != name else OWN_RULES:
        inner = re.sub(pattern, replacement, inner)
    return inner


def recognize(content: object) -> Original | None:
    """A loaded file as the original's, or None if it is something else."""
    if not isinstance(content, Mapping):
        return None
    trainer = content.get("trainer")
    if isinstance(trainer, Mapping):
        parts = {
            part: dict(trainer[part]) if isinstance(trainer.get(part), Mapping) else {}
            for part in ("var_wo_ddp", "vae_local")
        }
        if not any(parts.values()):
            return None
        stage = 1 if "var_opt" in trainer else 2 if "vae_opt" in trainer else None
        args, settings = content.get("args") or {}, trainer.get("config") or {}
        return Original(
            parts["var_wo_ddp"],
            parts["vae_local"],
            stage,
            content.get("epoch"),
            content.get("iter"),
            dict(args),
            dict(settings),
        )
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if "quantize.embedding.weight" in tensors:
        return Original({}, tensors, None, None, None, {}, {})
    if "pos_start" in tensors or any(LORA in name for name in tensors):
        return Original(tensors, {}, None, None, None, {}, {})
    return None


def is_lora(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are low-rank factors only, to be put on a base."""
    return bool(tensors) and all(LORA in name for name in tensors)


def has_bridge(original: Original) -> bool:
    """Whether the file holds a trained bridge: a stage-1 file's is random."""
    return original.stage != 1 and any(BRIDGE in name for name in original.vqvae)


def transformer_sizes(tensors: Mapping[str, Tensor], original: Original) -> dict:
    """GSVARConfig's fields that a transformer's tensors tell. Raises ValueError where one is
    missing."""

    def shape(name: str) -> torch.Size:
        if name not in tensors:
            raise ValueError(f"the transformer's tensor {name} is missing")
        return tensors[name].shape

    blocks = count(tensors, r"blocks\.(\d+)\.")
    scale = tensors.get("blocks.0.attn.scale_mul_1H11")
    width = shape("class_emb.weight")[1]
    steps = count(tensors, r"con_embedding\.blocks\.(\d+)\.") // 2
    channels = [shape(f"con_embedding.blocks.{2 * i + 1}.weight")[0] for i in range(steps)]
    fused = original.args.get("fusion_block_idx")
    mixing = None if fused is None else tuple(i for i in fused if i < blocks)
    return {
        "depth": blocks,
        "width": width,
        "heads": width // 64 if scale is None else scale.numel(),
        "patch_nums": patch_nums(tensors, original),
        "prefix_channels": (shape("con_embedding.conv_in.weight")[0], *channels),
        "refiner_width": shape("diffloss.net.input_proj.weight")[0],
        "refiner_blocks": count(tensors, r"diffloss\.net\.res_blocks\.(\d+)\."),
        "labels": shape("class_emb.weight")[0],
        "mixing_blocks": None if mixing == tuple(range(blocks)) else mixing,
        "shared_adaln": "shared_ada_lin.1.weight" in tensors,
        "qk_norm": scale is not None,
        "drop_path": 0.1 * blocks / 24,
    }


def patch_nums(tensors: Mapping[str, Tensor], original: Original) -> str:
    """The scales: from the trainer's configuration, else from the level of each token."""
    if original.settings.get("patch_nums"):
        return ScaleSchedule.of(original.settings["patch_nums"]).text
    if "lvl_1L" not in tensors:
        raise ValueError(
            "the file does not tell its patch_nums: neither lvl_1L nor the trainer's config"
        )
    lengths = torch.bincount(tensors["lvl_1L"].flatten()).tolist()
    return ScaleSchedule.of([1, *(round(n**0.5) for n in lengths[1:])]).text


def vqvae_sizes(tensors: Mapping[str, Tensor]) -> dict:
    """GSVARConfig's fields that a VQ-VAE's tensors tell."""
    try:
        sizes = read_vqvae_sizes(tensors)
    except KeyError as e:
        raise ValueError(f"the VQ-VAE's tensor {e.args[0]} is missing") from None
    return {
        "vqvae_width": sizes["width"],
        "vqvae_multipliers": sizes["multipliers"],
        "vqvae_blocks": sizes["res_blocks"],
        "latent_channels": sizes["latent_channels"],
        "vocabulary": sizes["vocabulary"],
    }


def known_sizes(original: Original) -> dict:
    """As many of GSVARConfig's fields as the file tells; all of them where we wrote it."""
    if "gsvar" in original.settings:
        return json.loads(original.settings["gsvar"])
    sizes = vqvae_sizes(original.vqvae) if original.vqvae else {}
    if original.transformer and not is_lora(original.transformer):
        sizes |= transformer_sizes(original.transformer, original)
    return sizes


def config_of(original: Original, vqvae: Mapping[str, Tensor]) -> GSVARConfig:
    """The sizes of a model in the original's layout, its VQ-VAE perhaps from another file."""
    return GSVARConfig(**known_sizes(replace(original, vqvae=dict(vqvae))))


def own_state(
    model: GSVAR, transformer: Mapping[str, Tensor], vqvae: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[str]]:
    """The original's tensors under our names and shapes, and the misfits (`rename_state`)."""
    return rename_state(model, transformer, vqvae, foreign_name)


def to_original(
    model: GSVAR, *, epoch: int = 0, iteration: int = 0, args: dict | None = None
) -> dict:
    """A model as the original's scripts store it; its bridge, if it has one, included.

    The original can read it where the sizes are ones it knows (square scales, 32 groups, one mask).
    """
    config, scales = model.config, model.config.scales
    parts: dict[str, dict[str, Tensor]] = {"var_wo_ddp": {}, "vae_local": {}}
    for name, tensor in model.state_dict().items():
        foreign = foreign_name(name)
        if foreign.endswith("scale_mul_1H11"):
            tensor = tensor.view(1, -1, 1, 1)
        elif foreign.endswith("ada_gss"):
            tensor = tensor.view(1, 1, *tensor.shape)
        part = "vae_local" if name.startswith("vqvae.") else "var_wo_ddp"
        parts[part][foreign] = tensor.detach().float().cpu().contiguous()
    levels = torch.arange(len(scales))
    parts["var_wo_ddp"]["lvl_1L"] = levels.repeat_interleave(
        torch.tensor(model.segment_lengths(scales))
    )[None]
    for i in range(config.depth):
        parts["var_wo_ddp"][f"blocks.{i}.attn.{ZERO_BUFFER}"] = torch.zeros(config.width)
    parts["vae_local"]["quantize.ema_vocab_hit_SV"] = torch.zeros(len(scales), config.vocabulary)
    square = all(rows == columns for rows, columns in scales.grids)
    settings = {
        "patch_nums": [rows if square else [rows, columns] for rows, columns in scales.grids],
        "gsvar": json.dumps(asdict(config)),
    }
    return {
        "epoch": epoch,
        "iter": iteration,
        "trainer": {"config": settings, **parts},
        "args": args or {},
    }


def lora_tensors(model: GSVAR) -> dict[str, Tensor]:
    """The low-rank factors of a model that was adapted, under the original's names."""
    tensors = {}
    for i, block in enumerate(model.transformer.blocks):
        for name, layer in (("mat_qkv", block.attention.qkv), ("proj", block.attention.proj)):
            if hasattr(layer, "parametrizations"):
                lora = layer.parametrizations.weight[0]
                for letter, factor in (("A", lora.a), ("B", lora.b)):
                    flat = factor.detach().float().cpu().flatten(0, 1)
                    tensors[f"blocks.{i}.attn.{name}{LORA}{letter}"] = flat.contiguous()
    return tensors


def put_lora(
    model: GSVAR, tensors: Mapping[str, Tensor], args: Mapping, merge: bool = True
) -> None:
    """Put the original's low-rank factors on a base model, adapted already or not, and merge them
    into its weights unless they are to be trained on. Raises ValueError where they do not fit."""
    alpha = float(args.get("lora_alpha", 32))
    targets = str(args.get("lora_target_modules", "qv"))
    left = dict(tensors)
    for i, block in enumerate(model.transformer.blocks):
        layers = {
            f"blocks.{i}.attn.mat_qkv": (block.attention.qkv, tuple(c in targets for c in "qkv")),
            f"blocks.{i}.attn.proj": (block.attention.proj, (True,)),
        }
        for name, (layer, parts) in layers.items():
            a, b = (left.pop(f"{name}{LORA}{letter}", None) for letter in "AB")
            adapted = parametrize.is_parametrized(layer, "weight")
            if a is None and b is None and not adapted:
                continue
            if a is None or b is None:
                raise ValueError(f"{name}{LORA}{'A' if a is None else 'B'} is missing")
            if not (a.isfinite().all() and b.isfinite().all()):
                raise ValueError(f"{name}{LORA}A or B holds NaN or infinity")
            rows, columns = layer.weight.shape
            block = rows // len(parts) * sum(parts)
            rank = b.shape[-1]
            if not rank or a.shape != (sum(parts) * rank, columns) or b.shape != (block, rank):
                raise ValueError(f"{name}{LORA}A {list(a.shape)} does not fit the base's {name}")
            # a second adaptation on top of the first would be one too many
            lora = layer.parametrizations.weight[0] if adapted else None
            if lora is None:
                lora = add_lora(layer, rank, alpha, parts)
            elif (lora.parts, lora.a.shape[1], lora.scaling) != (parts, rank, alpha / rank):
                raise ValueError(f"{name} is adapted otherwise than {name}{LORA}A is")
            with torch.no_grad():
                lora.a.copy_(a.view(lora.a.shape))
                lora.b.copy_(b.view(lora.b.shape))
    if left:
        raise ValueError(
            f"low-rank factors that the base has no place for: {', '.join(sorted(left)[:5])}"
        )
    if merge:
        merge_lora(model)
