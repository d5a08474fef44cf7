# Does a fixer help on scenes it never saw, and more than its controls? Table, metrics and sheets.
#   python -m benchmarks.quality.proof heldout.json --fixers gsvar=vae-ckpt-best.pth
from __future__ import annotations

import json
import logging
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, stdev

import numpy as np
import torch
import tyro
from torch import Tensor
from tqdm import tqdm

from benchmarks.quality.bridge_only import BridgeOnly, TruthTokens
from benchmarks.quality.unet import UNetFixer
from evaluation.fixing import FixingMetrics
from evaluation.metrics import Metrics
from evaluation.pictures import draw_error_map, join_side_by_side, save_png, to_uint8
from evaluation.sheet import Cell, draw_caption
from fixers import load
from fixers.fixer import Fixer
from fixers.gsvar import SHIPPED, GSVARFixer
from runtime.command import run_command
from runtime.files import write_json
from triplets import manifest
from triplets.guides import Guides
from triplets.manifest import Triplet
from triplets.pictures import read_image

log = logging.getLogger(__name__)

Group = tuple[str, str]  # scenes and strategy
SHOWN = 24  # random cases on the sheet
WORST = 8
LINE = 20  # pixels of a caption on the sheet
WAYS = {"noref", "noalpha", "photo", "nobridge", "own", "truth"}


@dataclass(frozen=True)
class Arguments:
    """Measure fixers on lists of triplets, grouped by capture and strategy.

    A fixer is NAME=WEIGHTS[:HOW]. WEIGHTS: shipped, a GS-VAR file, a unet.safetensors of
    `benchmarks.quality.unet`, nlm, identity, or oracle, which knows the truth and takes, pixel by
    pixel, the nearer of render and reference: the most that choosing between them can bring. HOW:
    noref gives it no reference, noalpha not the render's alpha, photo the reference as taken even
    where the weights learnt from warped ones, nobridge decodes without the bridge, own decodes the
    render's own tokens instead of the transformer's, truth the truth's: the most that a
    transformer could bring.
    """

    lists: tyro.conf.Positional[tuple[str, ...]]
    """JSON lists of triplets."""
    fixers: tuple[str, ...]
    """What is measured."""
    splits: tuple[str, ...] = ("val", "test")
    """Which splits of the lists: those of them that are there, together."""
    out: Path = Path("results/proof")
    """Everything goes here; what was measured there already is kept."""
    per_group: int = 60
    """Triplets of each group, spread over it."""
    dtype: str = "float32"
    """Precision of the networks."""
    procedural: str = "procedural"
    """Scenes whose names begin so count as one capture."""


def group_of(triplet: Triplet, procedural: str) -> Group:
    """<scene>_<strategy>_...: procedural scenes together."""
    for strategy in ("underfitting", "sparse", "random", "noise", "cross"):
        scene, found, _ = triplet.key.partition(f"_{strategy}_")
        if found:
            return procedural if scene.startswith(procedural) else scene, strategy
    return triplet.key, ""


def chosen(a: Arguments) -> dict[Group, list[Triplet]]:
    groups: dict[Group, list[Triplet]] = {}
    for file in a.lists:
        if not Path(file).is_file():
            raise FileNotFoundError(f"{file}: no such list of triplets")
        try:
            content = json.loads(Path(file).read_text())
            splits = [split for split in a.splits if content.get(split)]
        except (ValueError, AttributeError):
            raise ValueError(f"{file} is no list of triplets") from None
        if not splits:
            raise ValueError(f"{file} has no entries in {' or '.join(a.splits)} (--splits)")
        for split in splits:
            for triplet in manifest.read(file, (split,)):
                groups.setdefault(group_of(triplet, a.procedural), []).append(triplet)
    few = {}
    for group, triplets in sorted(groups.items()):
        count = min(a.per_group, len(triplets))
        few[group] = [triplets[i * len(triplets) // count] for i in range(count)]
    return few


Answer = Callable[[Triplet, Tensor], Tensor]


def answering(spec: str, dtype: str) -> tuple[str, Answer]:
    """The name of a fixer and what it makes of a triplet's render."""
    name, _, told = spec.partition("=")
    weights, _, how = told.partition(":")
    ways = set(how.split("+")) - {""}
    if not weights or ways - WAYS:
        raise ValueError(f"--fixers {spec}: NAME=WEIGHTS[:{'|'.join(sorted(WAYS))}]")
    guides = Guides(0 if "noref" in ways else 1, "photo" not in ways, "noalpha" not in ways)
    fixer: Fixer
    if weights == "oracle":
        if not guides.count:
            raise ValueError(
                f"--fixers {spec}: the oracle chooses from a reference; leave noref out"
            )
        return name, partial(nearer, guides)
    if weights == "nlm":
        fixer = load("classical")
    elif weights == "identity":
        fixer = load("identity")
    elif weights.endswith("unet.safetensors"):
        fixer = UNetFixer.load(Path(weights), getattr(torch, dtype))
    else:
        kind = TruthTokens if "truth" in ways else BridgeOnly if "own" in ways else GSVARFixer
        fixer = kind.load(
            None if weights == "shipped" else weights,
            mode="native",
            bridge="nobridge" not in ways,
            dtype=dtype,
        )
        if not fixer.model.config.warped_references:
            guides = replace(guides, warped=False)

    def answer(triplet: Triplet, render: Tensor) -> Tensor:
        if isinstance(fixer, TruthTokens):
            fixer.truth = read_image(triplet.truth)
        guides.files(triplet)
        references = guides.read_references(triplet, render)
        references = torch.stack(references)[None] if references else None
        alpha = guides.read_alpha(triplet, render)
        return fixer.fix(render[None], references, alphas=None if alpha is None else alpha[None])[0]

    return name, answer


def nearer(guides: Guides, triplet: Triplet, render: Tensor) -> Tensor:
    """The render [H,W,3], and the reference where that is nearer to the truth."""
    guides.files(triplet)
    truth, reference = read_image(triplet.truth), guides.read_references(triplet, render)[0]
    before, after = ((image - truth).square().sum(-1) for image in (render, reference))
    return torch.where((after < before)[..., None], reference, render)


def stamp(spec: str, dtype: str) -> list:
    """What tells the answers of a fixer from others under its name."""
    weights = spec.partition("=")[2].partition(":")[0]
    file = SHIPPED if weights == "shipped" else Path(weights)
    told = [file.stat().st_size, file.stat().st_mtime] if file.is_file() else []
    return [spec, dtype, *told, "median"]  # what is measured


def measure(
    name: str, answer: Answer, groups: dict[Group, list[Triplet]], out: Path, made_with: list
) -> dict[Group, dict]:
    """Means of each group; rows and pictures are kept under `out`."""
    means = {}
    with tqdm(total=sum(map(len, groups.values())), desc=name, unit="picture") as bar:
        for group, triplets in groups.items():
            file = out / name / f"{'-'.join(group)}.json"
            keys = [t.key for t in triplets]
            if file.exists():
                kept = json.loads(file.read_text())
                if kept["keys"] == keys and kept.get("made_with") == made_with:
                    means[group] = kept["mean"]
                    bar.update(len(triplets))
                    continue
            judge, rows, seconds = FixingMetrics(Metrics("alex")), {}, []
            for triplet in triplets:
                render, truth = read_image(triplet.render), read_image(triplet.truth)
                began = time.perf_counter()
                fixed = answer(triplet, render)
                seconds.append(time.perf_counter() - began)
                rows[triplet.key] = judge(render, fixed, truth)
                save_png(out / name / "fixed" / f"{triplet.key}.png", fixed)
                bar.update()
            mean = averaged(list(rows.values())) | judge.pooled()
            mean |= {"seconds": sorted(seconds)[len(seconds) // 2], "pictures": len(rows)}
            mean["gain_median"] = median(r["gain_psnr"] for r in rows.values())
            mean["gain_error"] = standard_error([r["gain_psnr"] for r in rows.values()])
            mean["worse"] = sum(r["gain_psnr"] < 0 for r in rows.values()) / len(rows)
            write_json(file, {"keys": keys, "made_with": made_with, "mean": mean, "rows": rows})
            means[group] = mean
    return means


def standard_error(values: list[float]) -> float | None:
    """Of the mean of values, as if they were independent."""
    if len(values) < 2:
        return None
    return stdev(values) / len(values) ** 0.5


def averaged(rows: list[dict]) -> dict[str, float | None]:
    names = rows[0]
    means = {}
    for name in names:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def error(means: dict) -> str:
    found = means.get("gain_error")
    return "" if found is None else f" ± {found:.2f}"


def table(results: dict[str, dict[Group, dict]]) -> str:
    """Markdown: a line for each group and fixer."""
    lines = [
        "| capture | strategy | fixer | PSNR of the render | fixed | gain | median | "
        "SSIM gain | gain on good pixels | on bad | made worse | s a picture |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for group in next(iter(results.values())):
        for name, means in results.items():
            m = means[group]
            good, bad = (
                "" if m[f"gain_psnr_{w}"] is None else f"{m[f'gain_psnr_{w}']:+.2f}"
                for w in ("good", "bad")
            )
            lines.append(
                f"| {group[0]} | {group[1]} | {name} | {m['render_psnr']:.2f} | {m['psnr']:.2f} | "
                f"{m['gain_psnr']:+.2f}{error(m)} | {m['gain_median']:+.2f} | "
                f"{m['gain_ssim']:+.4f} | {good} | {bad} | {100 * m['worse']:.0f} % | "
                f"{m['seconds']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def sheets(name: str, groups: dict[Group, list[Triplet]], out: Path) -> None:
    """Random and worst cases of a fixer: render, reference, fixed, truth, errors."""
    rows: dict[str, dict] = {}
    for group in groups:
        rows |= json.loads((out / name / f"{'-'.join(group)}.json").read_text())["rows"]
    triplets = {t.key: t for chosen in groups.values() for t in chosen}
    drawn = sorted(random.Random(0).sample(sorted(rows), min(SHOWN, len(rows))))
    worst = sorted(rows, key=lambda key: rows[key]["gain_psnr"])[:WORST]
    for kind, keys in (("random", drawn), ("worst", worst)):
        lines = []
        for key in keys:
            triplet = triplets[key]
            render, truth = read_image(triplet.render), read_image(triplet.truth)
            fixed = read_image(out / name / "fixed" / f"{key}.png")
            warped = all(r.warped for r in triplet.references)
            guides = Guides(1, warped).read_references(triplet, render)
            pictures = [render, *guides, fixed, truth, draw_error_map(render, truth)]
            line = join_side_by_side([*pictures, draw_error_map(fixed, truth)], gap=2)
            before, after = (rows[key][f"{which}psnr"] for which in ("render_", ""))
            told = f"{key}: render {before:.2f} dB, fixed {after:.2f} dB ({after - before:+.2f})"
            strip = np.asarray(draw_caption(Cell(line, told), line.shape[1], LINE))
            lines.append(np.concatenate((strip, to_uint8(line))))
        width = max(line.shape[1] for line in lines)
        whole = [
            np.pad(line, ((0, 2), (0, width - line.shape[1]), (0, 0)), constant_values=255)
            for line in lines
        ]
        save_png(out / f"{name}_{kind}.png", np.concatenate(whole))
        log.info("%s, from above: %s", kind, ", ".join(keys))


def main() -> None:
    a = tyro.cli(Arguments, prog="python -m benchmarks.quality.proof", use_underscores=True)
    if a.per_group < 1 or not a.lists:
        raise ValueError("give at least one list, and --per_group at least 1")
    names = [spec.partition("=")[0] for spec in a.fixers]
    if len(set(names)) < len(names):
        raise ValueError("--fixers: give each a NAME of its own")
    groups = chosen(a)
    results = {}
    for spec in a.fixers:
        name, answer = answering(spec, a.dtype)
        results[name] = measure(name, answer, groups, a.out, stamp(spec, a.dtype))
    text = table(results)
    sys.stdout.write(text)
    (a.out / "table.md").write_text(text)
    write_json(
        a.out / "metrics.json",
        {name: {"/".join(g): m for g, m in means.items()} for name, means in results.items()},
    )
    sheets(next(iter(results)), groups, a.out)


if __name__ == "__main__":
    run_command(main)
