# The options of the U-Net fixer.
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fixers.fixer import SPEED_ONLY, FixerOptions, Needs


@dataclass(frozen=True)
class UNetOptions(FixerOptions):
    """A plain network, as a baseline.

    Which weights, and in which precision they are run."""

    checkpoint: Path | None = None
    """Weights: a unet.safetensors, which must be given."""
    dtype: Literal["auto", "float32", "bf16", "fp16"] = "float32"
    """Precision of the networks; auto is bf16 where the machine multiplies it, else float32."""
    force_bf16: bool = field(default=False, metadata=SPEED_ONLY)
    """Compute in bf16 even where the machine only emulates it, some 300 times slower."""

    def needs(self) -> Needs:
        """Those of the weights; nothing for a file that is not there."""
        from models.unet import read_config

        if self.checkpoint is None or not self.checkpoint.is_file():
            return Needs()
        config = read_config(self.checkpoint)
        guided = config.views > 1
        return Needs(references=guided, warped=guided and config.warped, alpha=config.alpha)
