# Parity with the original networks: python -m benchmarks.parity DIR
# The folder holds inputs and expected outputs; weights are generated from the parameters' names.
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.parity import archonview, efficient_lvsm, gsvar, lvsm
from runtime.command import run_command
from runtime.flags import parse_command

SYSTEMS = {
    "archonview": archonview.compare,
    "gsvar": gsvar.compare,
    "efficient_lvsm": efficient_lvsm.compare,
    "lvsm_decoder_only": lvsm.compare,
}


@dataclass(frozen=True)
class Options:
    """Compare the networks with vectors of the original ones; exit code 1 beyond the tolerances."""

    folder: tyro.conf.Positional[Path]
    """meta.json, keys.json and the vectors of one system."""


@torch.no_grad()
def main(folder: Path) -> None:
    """Print the errors by network; exit code 1 beyond the tolerances."""
    for name in ("meta.json", "keys.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: name a folder of parity vectors")
    system = json.loads((folder / "meta.json").read_text()).get("system")
    if system not in SYSTEMS:
        raise ValueError(f"{folder} is of {system}; here are {', '.join(SYSTEMS)}")
    rows = SYSTEMS[system](folder)
    print(f"{'largest error / deviation':<44} {'error':>10} {'limit':>10}")
    for row in rows:
        print(
            f"{row.name:<44} {row.error:10.2e} {row.limit:10.0e}  {'ok' if row.passes else 'FAILS'}"
        )
    if not all(row.passes for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python -m benchmarks.parity").folder))
