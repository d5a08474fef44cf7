# Low-rank adaptation of GS-VAR's attention.
from models.gsvar.model import GSVAR
from models.layers.lora import add_lora


def adapt(model: GSVAR, rank: int, alpha: float, targets: str = "qv") -> None:
    """Freeze the model and give every block's attention low-rank factors to train: of q, k, v and
    o (its projection), as `targets` names them. ValueError if it names others."""
    if not targets or set(targets) - set("qkvo"):
        raise ValueError(f"--lora_target_modules={targets!r} must name some of q, k, v and o")
    if rank < 1:
        raise ValueError(f"--lora_r={rank} must be at least 1")
    model.requires_grad_(False)
    for block in model.transformer.blocks:
        if set(targets) & set("qkv"):
            add_lora(block.attention.qkv, rank, alpha, tuple(c in targets for c in "qkv"))
        if "o" in targets:
            add_lora(block.attention.proj, rank, alpha)
