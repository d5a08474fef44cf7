# Test a fixer on triplets in tiles of the trained size; see --help.
from __future__ import annotations

import sys

from runtime.command import run_command

ABOUT = """
Test a fixer on triplets (render, reference, ground truth), in tiles of the trained size.

Examples:

  python test_tile.py --var_test_path=vae-ckpt-last.pth --use_bridge=True --depth=24

  python test_tile.py --fixer=classical --json_path=mine.json --limit=10

Predictions, metrics.txt, metrics.json, comparison sheets and report/index.html go to
<testset_path>/VARPrediction/<exp>/<epoch>_<iter>/, copies of the
pictures to <testset_path>/renders, gt and ref. Flags of the original that only training uses
(--tblr, --fp16, --wandb_flag, ...) are taken and have no effect; booleans are written --flag=True.
"""


def main() -> None:
    """Parse the flags and test."""
    from fixers.testing.flags import parse_test
    from training.gsvar.flags import TRAINING

    flags = parse_test(sys.argv[1:], "test_tile.py", ABOUT, ignored=TRAINING)
    from fixers.testing.command import test

    test(flags, mode="tile", suffix="")


if __name__ == "__main__":
    run_command(main)
