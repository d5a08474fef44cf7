# GS-VAR's weights in checkpoints, in the original's layout.
from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from models.gsvar import GSVAR, adapter, loading

Prefix = Literal["vqvae", "ar", "vae"]
"""Of the checkpoints' names: stage 0, 1 and 2."""


class OriginalLayout:
    """`trainer` with `var_wo_ddp`, `vae_local` and the optimizer under a stage's own name: of stage
    0 the VQ-VAE alone, with LoRA its factors in the transformer's place. A training.stage.Codec."""

    def __init__(self, prefix: Prefix):
        self.prefix = prefix
        # the key tells a reader which stage a file is of
        self.optimizer_key = {"ar": "var_opt", "vae": "vae_opt", "vqvae": "vqvae_opt"}[prefix]

    def load_weights(self, model: GSVAR, content: dict, file: Path) -> None:
        """Fill a model of the same sizes. Raises ValueError where the weights do not fit."""
        original = loading.recognize(file, content)
        transformer = original.transformer
        if adapter.is_lora(transformer):
            adapter.put_lora(model, transformer, original.args, merge=False)
            return
        if not transformer:  # stage 0
            transformer = adapter.to_original(model)["trainer"]["var_wo_ddp"]
        state, misfits = adapter.own_state(model, transformer, original.vqvae)
        if misfits:
            raise ValueError(f"{file} does not fit: {'; '.join(misfits[:5])}")
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(state[name])

    def encode(self, model: GSVAR, *, optimizer: dict, args: dict, epoch: int, step: int) -> dict:
        """The content of a checkpoint."""
        factors = adapter.lora_tensors(model)
        content = adapter.to_original(model, epoch=epoch, iteration=step, args=args)
        trainer = content["trainer"]
        if factors:
            trainer["var_wo_ddp"] = factors
        if self.prefix == "vqvae":
            trainer["var_wo_ddp"] = {}
        trainer[self.optimizer_key] = {"optimizer": optimizer}
        return content

    def optimizer_state(self, content: dict) -> dict | None:
        """The first network's optimizer state; None if there is none."""
        return content["trainer"].get(self.optimizer_key, {}).get("optimizer")
