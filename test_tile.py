# Test a fixer on triplets in tiles of the trained size; see --help.
from __future__ import annotations

import sys

from fixers import testing
from gen_data import dataset_json
from scenes.command import run_command  # first: it sets how threads wait
from training import flags as shared

ABOUT = """
Test a fixer on triplets (render, reference, ground truth), in tiles of the trained size.

  python test_tile.py --var_test_path=vae-ckpt-last.pth --json_path=data/data.json --use_bridge=True

  python test_tile.py --fixer=classical --json_path=data/data.json

Predictions, metrics.txt, metrics.json, comparison sheets and report/index.html go to
<testset_path>/VARPrediction/<exp>/<epoch>_<iter>/.
"""


def main() -> None:
    flags = shared.parse(sys.argv[1:], "test_tile.py", ABOUT)
    triplets = dataset_json.read(flags.json_path, ("val", "test"))[: flags.eval_img_num]
    testing.run(flags, triplets, mode="tile", suffix="")


if __name__ == "__main__":
    run_command(main)
