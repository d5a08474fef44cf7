# Stage 1: train GS-VAR's transformer and refiner in latent space; see --help.
from __future__ import annotations

import sys

from runtime.command import run_command
from training.gsvar.flags import LatentFlags, parse_train

ABOUT = """
Stage 1, in latent space: the transformer learns to predict the ground truth's tokens from
the render and the reference views.

Examples:

  torchrun --nproc-per-node=8 VAR_train.py --depth=24 --batch_size=16 --ep=5 --fp16=2
  --exp_name=mine --var_pretrain_path=checkpoints/VARSR.pth

  python VAR_train.py --preset=tiny --vae_model_path=results/vq/vqvae-ckpt-best.pth --steps=2000
  --exp_name=mine

Checkpoints (ar-ckpt-last.pth, ar-ckpt-best.pth), metrics.csv, metrics.jsonl, training.png and
pictures of the validations go to results/<exp_name>. The same command goes on with a stopped run.
Booleans are written --flag=True.
"""


def main() -> None:
    flags = parse_train(LatentFlags, sys.argv[1:], "VAR_train.py", ABOUT)
    from training.gsvar.commands import train_latent  # torch, only once the flags are right

    train_latent(flags)


if __name__ == "__main__":
    run_command(main)
