# gsplat's PNG compression of splats (arXiv 2312.13299), where its packages are installed.
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from runtime.files import make_writable_folder
from splats.gaussians import NAMES, Splats


def check_compression(device: torch.device) -> None:
    """ValueError, with what to do, where the compression cannot run."""
    missing = [name for name in ("plas", "torchpq") if find_spec(name) is None]
    if device.type == "cuda" and not missing:
        return
    why = f"the packages {' and '.join(missing)}" if missing else "CUDA"
    raise ValueError(
        f"--compression png needs {why} (gsplat sorts by PLAS, from its GitHub repository, and "
        "clusters by TorchPQ on CUDA); leave it out, and convert the .ply to .sog or .spz with "
        "`python -m splats`"
    )


@torch.no_grad()
def compress(splats: Splats, folder: Path) -> None:
    """Write the splats to a folder of PNGs, unless they are there already."""
    from gsplat.compression import PngCompression

    if (folder / "meta.json").exists():
        return
    make_writable_folder(folder)
    values = {name: splats[name].detach().clone() for name in NAMES}
    PngCompression(verbose=False).compress(str(folder), values)
