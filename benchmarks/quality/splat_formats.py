# What each format of splats keeps of known values, and what PlayCanvas's splat-transform makes of
# the same files.
#   python -m benchmarks.quality.splat_formats [--splat_transform node_modules/.bin/splat-transform]
from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from scipy.spatial import cKDTree

import splats
from runtime.command import run_command
from runtime.flags import parse_command
from splats.formats import ply
from splats.formats.registry import list_written
from splats.gaussians import NAMES, SH_C0, Splats

THEIRS = (".compressed.ply", ".spz", ".sog", ".glb")  # which splat-transform writes
READ_BY_THEM = (".compressed.ply", ".spz", ".sog", ".splat")


@dataclass(frozen=True)
class Options:
    """Write known splats in every format and read them again: the largest errors, as a table."""

    count: int = 4096
    """Number of Gaussians."""
    splat_transform: Path | None = None
    """The command of npm's @playcanvas/splat-transform, for the rows of an independent reader and
    writer."""


@dataclass(frozen=True)
class Loss:
    """The largest errors of a copy of splats, and what else it does to them.

    position and scale: in world units and in logarithms. rotation: in degrees. opacity and color:
    of values in [0, 1]. harmonics: None if they are gone. opaque: the logit of an opacity of 1.
    """

    position: float
    scale: float
    rotation: float
    opacity: float
    color: float
    harmonics: float | None
    opaque: float
    in_order: bool


def known_splats(count: int = 4096, degree: int = 3) -> Splats:
    """Well separated splats of ordinary values, seeded; the last one's opacity is 1 in float32."""
    g = torch.Generator().manual_seed(0)
    K = (degree + 1) ** 2 - 1
    opacities = torch.rand(count, generator=g) * 10 - 5
    opacities[-1] = 30.0
    return Splats(
        means=torch.randn(count, 3, generator=g) * 3,
        scales=torch.rand(count, 3, generator=g) * 6 - 7,
        quats=torch.randn(count, 4, generator=g),
        opacities=opacities,
        sh0=torch.rand(count, 1, 3, generator=g) * 3 - 1.5,
        shN=torch.randn(count, K, 3, generator=g) * 0.1,
    )


def measure_loss(original: Splats, copy: Splats) -> Loss:
    """How a copy differs, in whatever order it is; ValueError if the numbers of splats differ."""
    if original.count != copy.count:
        raise ValueError(f"{copy.count} splats are no copy of {original.count}")
    a, b = ({name: s[name].detach().double() for name in NAMES} for s in (original, copy))
    order = torch.from_numpy(cKDTree(b["means"].numpy()).query(a["means"].numpy())[1])
    b = {name: value[order] for name, value in b.items()}
    dots = torch.nn.functional.cosine_similarity(a["quats"], b["quats"], dim=1).abs()
    same_degree = a["shN"].shape == b["shN"].shape
    return Loss(
        position=_largest(a["means"] - b["means"]),
        scale=_largest(a["scales"] - b["scales"]),
        rotation=math.degrees(2 * math.acos(min(1.0, float(dots.min())))),
        opacity=_largest(a["opacities"].sigmoid() - b["opacities"].sigmoid()),
        color=_largest(a["sh0"] - b["sh0"]) * SH_C0,
        harmonics=_largest(a["shN"] - b["shN"]) if same_degree else None,
        opaque=float(b["opacities"].max()),
        in_order=bool((order == torch.arange(len(order))).all()),
    )


def _largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max()) if difference.numel() else 0.0


def _row(name: str, loss: Loss, size: int, count: int) -> str:
    rest = "dropped" if loss.harmonics is None else f"{loss.harmonics:.2g}"
    cells = [name, f"{size / count:.0f}", f"{loss.position:.2g}", f"{loss.scale:.2g}"]
    cells += [f"{loss.rotation:.2g}", f"{loss.opacity:.2g}", f"{loss.color:.2g}", rest]
    cells += [f"{loss.opaque:.1f}", "kept" if loss.in_order else "changed"]
    return f"| {' | '.join(cells)} |"


def _run(command: Path, *arguments: Path | str) -> None:
    subprocess.run([command, "-q", "-w", "-g", "cpu", *arguments], check=True, capture_output=True)


def main() -> None:
    """Print the table; ValueError or OSError for a wrong flag."""
    options = parse_command(Options, "python -m benchmarks.quality.splat_formats")
    if options.count < 2:
        raise ValueError(f"--count {options.count}: give at least 2")
    command = options.splat_transform
    if command is not None and shutil.which(command) is None:
        raise ValueError(f"--splat_transform {command} is not a command")
    original = known_splats(options.count)
    print(
        "| file | bytes each | position | log scale | rotation (deg) | opacity | colour "
        "| harmonics | opaque (logit) | order |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for ending in list_written():
            file = folder / f"ours{ending}"
            splats.save(file, original)
            loss = measure_loss(original, splats.load(file))
            print(_row(ending, loss, file.stat().st_size, options.count), flush=True)
        if command is None:
            return
        command, back = command.absolute(), folder / "back.ply"
        ply.write(folder / "plain.ply", original)
        for ending in READ_BY_THEM:
            _run(command, folder / f"ours{ending}", back)
            size = (folder / f"ours{ending}").stat().st_size
            loss = measure_loss(original, splats.load(back))
            print(_row(f"{ending}, read by splat-transform", loss, size, options.count), flush=True)
        for ending in THEIRS:
            file = folder / f"theirs{ending}"
            _run(command, folder / "plain.ply", file)
            loss = measure_loss(original, splats.load(file))
            size = file.stat().st_size
            print(_row(f"{ending} of splat-transform", loss, size, options.count), flush=True)


if __name__ == "__main__":
    run_command(main)
