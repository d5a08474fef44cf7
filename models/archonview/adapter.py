# The original's checkpoints of ArchonView: its tensor names and layout <-> ours.
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from models.archonview.config import ArchonViewConfig
from models.archonview.model import ArchonView
from models.checkpoints.io import count_sizes
from models.checkpoints.system import System, fill
from models.var.names import (
    BUFFERS,
    TRANSFORMER_RULES,
    VQVAE_RULES,
    ZERO_BUFFER,
    count,
    read_vqvae_sizes,
    rename_state,
)
from models.var.scales import ScaleSchedule
from models.vqvae.config import VQVAEConfig

TITLE = "ArchonView"
RULES = [
    (r"^start_position$", "pos_start"),
    (r"^source_position$", "xpos_1LC"),
    (r"^position$", "pos_1LC"),
    (r"^source_scale_embedding\.", "xlvl_embed."),
    (r"^pose\.", "pose_embed."),
    (r"^condition\.", "emb_linear."),
    *TRANSFORMER_RULES,
]
OWN = ("null_embedding",)  # not in the original's files
PARTS = ("var_wo_ddp", "vae_local")
NOTE = "archonview"  # sizes in the trainer's config; in files of ours only


def foreign_name(name: str) -> str:
    """The original's name of one of our tensors, without the file's outer layers."""
    inner = name.removeprefix("vqvae.")
    for pattern, replacement in VQVAE_RULES if inner != name else RULES:
        inner = re.sub(pattern, replacement, inner)
    return inner


def read_config(transformer: Mapping[str, Tensor], vqvae: Mapping[str, Tensor]) -> ArchonViewConfig:
    """The sizes that the tensors tell. KeyError for one that is missing."""
    width = transformer["emb_linear.weight"].shape[0]
    lengths = torch.bincount(transformer["lvl_1L"].flatten()).tolist()
    depth = count(transformer, r"blocks\.(\d+)\.")
    return ArchonViewConfig(
        depth=depth,
        width=width,
        heads=transformer["blocks.0.attn.scale_mul_1H11"].numel(),
        embedding=transformer["emb_linear.weight"].shape[1],
        scales=ScaleSchedule.of([1, *(round(n**0.5) for n in lengths[1:])]),
        vqvae=VQVAEConfig(
            **read_vqvae_sizes(vqvae),
            phis=count(vqvae, r"quantize\.quant_resi\.qresi_ls\.(\d+)\."),
            phi_on_last=True,
        ),
        drop_path=0.1 * depth / 24,
    )


def build(config: ArchonViewConfig, names=()) -> ArchonView:
    """A model without memory for its weights (on the meta device), to be filled."""
    with torch.device("meta"):
        return ArchonView(config)


class Layout:
    """The trainer's files {"trainer": {"var_wo_ddp", "vae_local"}}. An `Adapter`."""

    def recognize(self, content: object) -> bool:
        """Whether a file's content, as `io.read` gives it, has this layout."""
        trainer = content.get("trainer") if isinstance(content, Mapping) else None
        transformer = trainer.get(PARTS[0]) if isinstance(trainer, Mapping) else None
        return isinstance(transformer, Mapping) and "xpos_1LC" in transformer

    def load(self, path: Path, content: Mapping) -> ArchonView:
        """The model in such a file, float32, in eval mode, without gradients; its null embedding is
        0. Raises ValueError, naming the file, unless all tensors fit."""
        transformer, vqvae = (dict(content["trainer"].get(part) or {}) for part in PARTS)
        if not vqvae:
            raise ValueError(f"{path} holds no tokenizer (vae_local)")
        noted = (content["trainer"].get("config") or {}).get(NOTE)
        try:
            own = noted and ArchonViewConfig(**json.loads(noted))
            model = build(own or read_config(transformer, vqvae))
        except (KeyError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}, a checkpoint of {TITLE}, does not fit: {what}") from None
        state, misfits = rename_state(model, transformer, vqvae, foreign_name, OWN)
        state |= {name: torch.zeros(model.state_dict()[name].shape) for name in OWN}
        fill(model, state, misfits, path, foreign_name)
        return model.eval().requires_grad_(False)

    def inspect(self, path: Path, content: Mapping) -> dict:
        """What such a file is, by heading."""
        transformer, vqvae = (dict(content["trainer"].get(part) or {}) for part in PARTS)
        return {
            "file": str(path),
            "format": f"{TITLE}'s original layout, pickle",
            "parts": {
                "transformer": count_sizes(list(transformer.values())),
                "vqvae": count_sizes(list(vqvae.values())),
            },
            "config": asdict(read_config(transformer, vqvae)),
        }

    def export(self, model: ArchonView) -> dict:
        """A model as the original's scripts store it, with the buffers that they expect."""
        transformer, vqvae = {}, {}
        for name, tensor in model.state_dict().items():
            if name in OWN:
                continue
            foreign = foreign_name(name)
            if foreign.endswith("scale_mul_1H11"):
                tensor = tensor.view(1, -1, 1, 1)
            (vqvae if name.startswith("vqvae.") else transformer)[foreign] = tensor.contiguous()
        lengths = model.config.scales.lengths
        ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
        transformer[BUFFERS[0]] = ids[None]
        transformer[BUFFERS[1]] = make_mask(lengths)
        for i in range(model.config.depth):
            zeros = torch.zeros(model.config.width)
            transformer[f"blocks.{i}.attn.{ZERO_BUFFER}"] = zeros
        vqvae[BUFFERS[2]] = torch.zeros(len(lengths), model.config.vqvae.vocabulary)
        note = {NOTE: json.dumps(asdict(model.config))}
        return {"trainer": {PARTS[0]: transformer, PARTS[1]: vqvae, "config": note}}


def make_mask(lengths: tuple[int, ...]) -> Tensor:
    """The original's mask [1,1,2L,2L], added to the logits: all see the source, which sees nothing
    else, and scales see those up to their own."""
    ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    ids = torch.cat((torch.full_like(ids, -1), ids))
    visible = ids[:, None] >= ids
    return torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)[None, None]


LAYOUT = Layout()
SYSTEM = System(
    format="archonview",
    title=TITLE,
    config=ArchonViewConfig,
    build=build,
    adapter=LAYOUT,
    exact=("vqvae.quantizer.",),
    foreign_name=foreign_name,
)
