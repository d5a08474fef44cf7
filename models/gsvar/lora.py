# Low-rank adaptation of GS-VAR's attention.
from models.gsvar.model import GSVAR
from models.layers import lora
from runtime.arguments import ArgumentError


def add_lora(model: GSVAR, rank: int, alpha: float, targets: str = "qv") -> None:
    """Freeze the model and give every block's attention low-rank factors to train: of q, k, v and
    o (its projection), as `targets` names them. ArgumentError if it names others, or for a rank
    below 1."""
    if not targets or set(targets) - set("qkvo"):
        raise ArgumentError(f"{{argument}}={targets!r} must name some of q, k, v and o", "targets")
    if rank < 1:
        raise ArgumentError(f"{{argument}}={rank} must be at least 1", "rank")
    model.requires_grad_(False)
    for block in model.transformer.blocks:
        if set(targets) & set("qkv"):
            lora.add_lora(block.attention.qkv, rank, alpha, tuple(c in targets for c in "qkv"))
        if "o" in targets:
            lora.add_lora(block.attention.proj, rank, alpha)
