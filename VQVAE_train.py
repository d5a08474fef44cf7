# Stage 0: train the multi-scale VQ-VAE; see --help.
from __future__ import annotations

import sys

from runtime.command import run_command
from training.gsvar.flags import TokenizerFlags, parse_train

ABOUT = """
Stage 0: the tokenizer, a multi-scale VQ-VAE, learns to encode pictures as tokens, from scratch or
from weights.

Examples:

  python VQVAE_train.py --preset=small --images=path/to/photos --steps=20000 --exp_name=vq

  torchrun --nproc-per-node=8 VQVAE_train.py --preset=original-d24 --json_path=data/data.json
  --vae_model_path=checkpoints/VQVAE.pth --tblr=1e-5 --gan=0.1 --exp_name=vq

It learns from the list's ground truths, or from a folder's pictures. vqvae-ckpt-best.pth is what
VAR_train.py takes as --vae_model_path; everything goes to results/<exp_name>. The same command
goes on with a stopped run. Booleans are written --flag=True.
"""


def main() -> None:
    flags = parse_train(TokenizerFlags, sys.argv[1:], "VQVAE_train.py", ABOUT)
    from training.gsvar.commands import train_tokenizer  # torch, only once the flags are right

    train_tokenizer(flags)


if __name__ == "__main__":
    run_command(main)
