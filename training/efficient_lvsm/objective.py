# What a step minimizes: the pictures' error, and (REPA) how far tokens are from a teacher's.
from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.efficient_lvsm import EfficientLVSM
from models.efficient_lvsm.model import join
from training.efficient_lvsm.losses import (
    Projector,
    Similarity,
    average_views,
    measure_similarity,
)
from training.stage import Losses

Pairs = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Stream ("input", "target") -> block of the teacher -> layers of the student, counted from 1."""


def parse_pairs(name: str, depth: int) -> Pairs:
    """The pairs that a name such as 8-2, 8-3t or 48-23 asks for: blocks of the teacher, layers of
    the student that go with them in turn (or with the one block), then i (input stream), t (target
    stream) or nothing (both).

    ValueError where it cannot be read or names a layer that is not there."""
    blocks, _, rest = name.partition("-")
    layers = rest.rstrip("it")
    streams = {"i": ("input",), "t": ("target",), "": ("input", "target")}.get(rest[len(layers) :])
    if streams is None or not (blocks.isdecimal() and layers.isdecimal()):
        raise ValueError(f"REPA's layers {name!r}: give them as 8-2, 8-3t or 48-23")
    if len(blocks) not in (1, len(layers)):
        raise ValueError(f"REPA's layers {name!r}: {len(blocks)} blocks for {len(layers)} layers")
    numbers = [int(layer) for layer in layers]
    if not all(1 <= layer <= depth for layer in numbers):
        raise ValueError(f"REPA's layers {name!r}: the network has layers 1 to {depth}")
    pairs: dict[int, tuple[int, ...]] = {}
    for block, layer in zip(blocks.ljust(len(layers), blocks[0]), numbers, strict=True):
        pairs[int(block)] = (*pairs.get(int(block), ()), layer)
    return dict.fromkeys(streams, pairs)


class Repa(nn.Module):
    """Projectors of the student's tokens, and their distance from a frozen teacher's."""

    def __init__(
        self, pairs: Pairs, width: int, teacher: int, hidden: int = 2048, kind: Similarity = "sl1"
    ) -> None:
        super().__init__()
        self.pairs, self.kind = pairs, kind
        self.projectors = nn.ModuleDict(
            {
                f"{stream}_{block}_{layer}": Projector(width, teacher, hidden)
                for stream, blocks in pairs.items()
                for block, layers in blocks.items()
                for layer in layers
            }
        )

    def forward(
        self, students: Mapping[str, list[Tensor]], teachers: Mapping[str, Mapping[int, Tensor]]
    ) -> Tensor:
        """The loss of each stream's tokens after each layer, [B,V,P,C], and the teacher's [V,P,C']
        by stream and block, of all scenes' views one after the other."""
        losses = []
        for name, projector in self.projectors.items():
            stream, block, layer = name.split("_")
            tokens = projector(students[stream][int(layer) - 1].flatten(0, 1))
            losses.append(measure_similarity(tokens, teachers[stream][int(block)], self.kind))
        return average_views(losses)


class Objective:
    """The weighted sum of MSE, of features, and of REPA.

    perceptual: a network that compares images [N,3,H,W] in [0,1], or None. It and the teacher
    belong in no checkpoint."""

    def __init__(
        self,
        perceptual: nn.Module | None = None,
        *,
        mse_weight: float = 1.0,
        perceptual_weight: float = 0.5,
        repa_weight: float = 0.5,
    ) -> None:
        self.perceptual = perceptual
        self.weights = {"mse": mse_weight, "perceptual": perceptual_weight, "repa": repa_weight}

    def __call__(
        self,
        model: EfficientLVSM,
        photos: Tensor,
        photo_rays: Tensor,
        target_rays: Tensor,
        truth: Tensor,
        repa: Repa | None = None,
        teachers: Mapping[str, Mapping[int, Tensor]] | None = None,
    ) -> Losses:
        """The losses of targets whose pictures [B,M,3,H,W] in [0,1] are known; else as the
        model's `forward`."""
        students: dict[str, list[Tensor]] = {"input": [], "target": []}
        contexts = join(model.encode(photos, photo_rays, students["input"]))
        rendered = model.decode(target_rays, contexts, students["target"]).flatten(0, 1).float()
        truth = truth.flatten(0, 1).float()
        parts = {"mse": (rendered - truth).square().mean()}
        if self.perceptual is not None and self.weights["perceptual"] > 0:
            parts["perceptual"] = self.perceptual(rendered, truth)
        if repa is not None:
            parts["repa"] = repa(students, teachers)
        loss = sum(self.weights[name] * value for name, value in parts.items())
        psnr = -10 * torch.log10(parts["mse"].detach())
        return {"loss": loss, "psnr": psnr} | {n: value.detach() for n, value in parts.items()}
