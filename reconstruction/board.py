# Numbers for TensorBoard, under the names of gsplat's trainer.
from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor

from evaluation.metrics import mse_to_psnr
from reconstruction.config import Config

log = logging.getLogger(__name__)


class Board:
    """Writes every `config.tb_every` steps; nothing if that is 0 or tensorboard is missing."""

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.every, self.writer = folder, config.tb_every, None
        if self.every:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                log.warning(
                    "--tb_every has no effect: install the package tensorboard (the report shows "
                    "the same curves)"
                )
                self.every = 0
            else:
                self.writer = SummaryWriter(str(folder))

    def add_step(self, done: int, loss: Tensor, error: Tensor | None, count: int) -> None:
        """The numbers of a training step, if it is due."""
        if not self.every or (done - 1) % self.every:
            return
        values = {"loss": loss.item(), "num_GS": count}
        if error is not None:
            values["psnr"] = mse_to_psnr(error.item())
        for name, value in values.items():
            self.writer.add_scalar(f"train/{name}", value, done - 1)

    def add_evaluation(self, done: int, stats: dict[str, Any]) -> None:
        """The means over the held-out views."""
        if self.every:
            for name, value in stats.items():
                if isinstance(value, int | float) and name != "step":
                    self.writer.add_scalar(f"val/{name}", value, done - 1)
            self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
