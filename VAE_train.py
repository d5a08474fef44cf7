# Stage 2: train the VAE-bridge in image space; see --help.
from __future__ import annotations

import sys

from runtime.command import run_command
from training.gsvar.flags import BridgeFlags, parse_train

ABOUT = """
Stage 2, in image space: the VAE-bridge learns to decode stage 1's latents with the help of the
render.

Examples:

  torchrun --nproc-per-node=8 VAE_train.py --depth=24 --batch_size=4 --ep=5 --fp16=2
  --exp_name=bridge --var_pretrain_path=results/mine/ar-ckpt-last.pth

  python VAE_train.py --var_pretrain_path=results/mine/ar-ckpt-best.pth --train_decoder=True
  --crops=4 --cache_dir=results/cache --exp_name=bridge

vae-ckpt-last.pth and vae-ckpt-best.pth hold the whole model; everything goes to
results/<exp_name>. The same command goes on with a stopped run. Booleans are written --flag=True.
"""


def main() -> None:
    flags = parse_train(BridgeFlags, sys.argv[1:], "VAE_train.py", ABOUT)
    from training.gsvar.commands import train_bridge  # torch, only once the flags are right

    train_bridge(flags)


if __name__ == "__main__":
    run_command(main)
