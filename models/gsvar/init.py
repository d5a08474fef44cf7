# A new model's weights, as the original draws them; and the refiner's, as MAR draws them.
import math

import torch
from torch import nn


@torch.no_grad()
def initialise(
    model: nn.Module,
    gate: float = 1e-5,
    modulation: float = 0.5,
    head: float = 0.02,
    deviation: float | None = None,
) -> None:
    """Truncated normals of the given deviation, by default sqrt(1/3C); gates, other modulations
    and head smaller by the given factors.

    The refiner's modulations and output start at zero, so that it begins as an identity.
    """
    width, depth = model.config.width, model.config.depth
    deviation = math.sqrt(1 / width / 3) if deviation is None else deviation
    for name, module in model.named_modules():
        if name.startswith("vqvae") or name.startswith("refiner."):
            continue
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=deviation)
        elif isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
        if getattr(module, "bias", None) is not None and not isinstance(module, nn.LayerNorm):
            module.bias.zero_()
    nn.init.trunc_normal_(model.prefix_position, std=deviation)
    model.head.weight.mul_(head)
    model.head_adaln[1].weight.mul_(modulation)
    for block in model.transformer.blocks:
        block.attention.proj.weight.div_(math.sqrt(2 * depth))
        block.mlp[2].weight.div_(math.sqrt(2 * depth))
        if hasattr(block, "adaln"):
            block.adaln[1].weight[2 * width :].mul_(modulation)
            block.adaln[1].weight[: 2 * width].mul_(gate)
        else:
            block.offset[2:].mul_(modulation)
            block.offset[:2].mul_(gate)
    if model.prior is not None:
        model.prior.aim.weight.zero_()  # at first the render's own tokens
        model.head.weight.zero_()
    refiner = model.refiner
    for layer in refiner.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            layer.bias.zero_()
    for layer in (refiner.time[0], refiner.time[2]):
        nn.init.normal_(layer.weight, std=0.02)
    for layer in (*(b.modulation for b in refiner.blocks), refiner.modulation, refiner.output):
        layer.weight.zero_()
