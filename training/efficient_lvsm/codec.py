# Efficient-LVSM's weights in checkpoints, in the original's layout.
from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from models.checkpoints.io import unwrap
from models.efficient_lvsm.adapter import LAYOUT


class OriginalLayout:
    """`model` under the original's names, beside the optimizer. A training.stage.Codec."""

    def load_weights(self, model: nn.Module, content: dict, file: Path) -> None:
        """Fill a model of the same sizes. Raises ValueError where the weights do not fit."""
        state = unwrap({"model": content["model"]})[0]
        weights = LAYOUT.load(file, state).state_dict()
        projectors = {n: LAYOUT.foreign_name(n) for n in model.state_dict() if "repa." in n}
        weights |= {n: state[foreign] for n, foreign in projectors.items() if foreign in state}
        sizes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if {name: tensor.shape for name, tensor in weights.items()} != sizes:
            raise ValueError(f"{file} is of another size, or of other --repa")
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(weights[name])

    def encode(
        self, model: nn.Module, *, optimizer: dict, args: dict, epoch: int, step: int
    ) -> dict:
        """The content of a checkpoint."""
        weights = {name: t.cpu().clone() for name, t in LAYOUT.export(model)["model"].items()}
        counts = {"fwdbwd_pass_step": step, "param_update_step": step}
        return {"model": weights, "optimizer": optimizer, "args": args, "epoch": epoch, **counts}

    def optimizer_state(self, content: dict) -> dict | None:
        """The optimizer state that `encode` put into the content; None if there is none."""
        return content.get("optimizer")
