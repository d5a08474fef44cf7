# Does a fixer help on unseen scenes, and more than its controls? Table, metrics and sheets.
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
from typing import Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from evaluation.fixing import FixingMetrics
from evaluation.metrics import METRICS, Metrics
from evaluation.pictures import draw_error_map, join_side_by_side, save_png, to_uint8
from evaluation.sheet import Cell, draw_caption
from fixers import NAMES, load
from fixers.fixer import Fixer
from fixers.gsvar import SHIPPED, GSVARFixer, GSVAROptions
from fixers.gsvar.own_tokens import OwnTokensFixer, TruthTokensFixer
from runtime.command import run_command
from runtime.files import write_json
from runtime.flags import parse_command
from runtime.progress import ProgressBar
from triplets import manifest
from triplets.guides import Guides
from triplets.manifest import Triplet
from triplets.pictures import read_image, read_render

log = logging.getLogger(__name__)

Group = tuple[str, str]  # scenes and strategy
SHOWN = 24  # random cases on the sheet
WORST = 8
LINE = 20  # pixels of a caption on the sheet
WAYS = {"noref", "noalpha", "photo", "nobridge", "own", "truth"}


@dataclass(frozen=True)
class Arguments:
    """Measure fixers on lists of triplets, grouped by capture and strategy.

    A fixer is NAME=WEIGHTS[:HOW]. WEIGHTS is shipped, a GS-VAR file, a unet.safetensors of
    `benchmarks.quality.unet`, nlm, identity or oracle. The oracle sees the ground truth and takes
    for each pixel the nearer one of render and reference: an upper bound for choosing between them.
    HOW: noref gives no reference, noalpha no alpha, photo the unwarped reference even to weights
    trained with warped ones; nobridge decodes without the bridge, own decodes the render's own
    tokens and truth those of the ground truth: an upper bound for any transformer.
    """

    lists: tyro.conf.Positional[tuple[str, ...]]
    """JSON lists of triplets."""
    fixers: tuple[str, ...]
    """What to measure."""
    splits: tuple[str, ...] = ("val", "test")
    """Splits of the lists to use; a list may lack some of them."""
    out: Path = Path("results/proof")
    """Everything goes here; fixers measured there already are not measured again."""
    per_group: int = 60
    """Triplets per group, spread evenly over it."""
    dtype: str = "float32"
    """Precision of the networks."""
    procedural: str = "procedural"
    """Scenes whose names begin with this count as one capture."""
    lpips_net: Literal["alex", "vgg", "both"] = "both"
    """Network of LPIPS; both: lpips with AlexNet and lpips_vgg with VGG16."""
    backbones: Path | None = None
    """Folder with the weights of LPIPS's networks, as for the trainer."""


def group_of(triplet: Triplet, procedural: str) -> Group:
    """Scene and strategy of a triplet by its key; procedural scenes count as one."""
    for strategy in ("underfitting", "sparse", "random", "noise", "cross"):
        scene, separator, _ = triplet.key.partition(f"_{strategy}_")
        if separator:
            return procedural if scene.startswith(procedural) else scene, strategy
    return triplet.key, ""


def choose_triplets(a: Arguments) -> dict[Group, list[Triplet]]:
    """Up to `per_group` triplets of each group, spread evenly; ValueError for unusable lists."""
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


def load_answer(spec: str, dtype: str) -> tuple[str, Answer]:
    """A fixer's name, and a function that fixes a triplet's render [H,W,3] with it."""
    name, _, rest = spec.partition("=")
    weights, _, how = rest.partition(":")
    ways = set(how.split("+")) - {""}
    if not weights or ways - WAYS:
        raise ValueError(f"--fixers {spec}: NAME=WEIGHTS[:{'|'.join(sorted(WAYS))}]")
    guides = Guides(0 if "noref" in ways else 1, "photo" not in ways, "noalpha" not in ways)
    if weights == "oracle":
        if not guides.count:
            raise ValueError(
                f"--fixers {spec}: the oracle chooses from a reference; leave noref out"
            )
        return name, partial(choose_nearer, guides)
    fixer = load_fixer(weights, ways, dtype)
    if not fixer.needs.references:
        guides = replace(guides, count=0)
    if not fixer.needs.warped:
        guides = replace(guides, warped=False)

    def answer(triplet: Triplet, render: Tensor) -> Tensor:
        if isinstance(fixer, TruthTokensFixer):
            fixer.truth = read_image(triplet.truth)
        guides.files(triplet)
        references = guides.read_references(triplet, render)
        references = torch.stack(references)[None] if references else None
        alpha = guides.read_render(triplet)[1]
        return fixer.fix(render[None], references, alphas=None if alpha is None else alpha[None])[0]

    return name, answer


def load_fixer(weights: str, ways: set[str], dtype: str) -> Fixer:
    """A fixer by its name, or by its weights."""
    if weights in ("nlm", *NAMES):
        return load("classical" if weights == "nlm" else weights)
    if weights.endswith("unet.safetensors"):
        return load("unet", checkpoint=Path(weights), dtype=dtype)
    kind = TruthTokensFixer if "truth" in ways else OwnTokensFixer if "own" in ways else GSVARFixer
    options = GSVAROptions(
        checkpoint=None if weights == "shipped" else Path(weights),
        mode="native",
        bridge="nobridge" not in ways,
        dtype=dtype,
    )
    return kind.load(options)


def choose_nearer(guides: Guides, triplet: Triplet, render: Tensor) -> Tensor:
    """The render [H,W,3], and the reference where that is nearer to the truth."""
    guides.files(triplet)
    truth, reference = read_image(triplet.truth), guides.read_references(triplet, render)[0]
    before, after = ((image - truth).square().sum(-1) for image in (render, reference))
    return torch.where((after < before)[..., None], reference, render)


def describe_answer(spec: str, dtype: str, metrics: Metrics) -> list:
    """What identifies stored answers: the fixer, its precision, its weights file's version, and
    what is measured."""
    weights = spec.partition("=")[2].partition(":")[0]
    file = SHIPPED if weights == "shipped" else Path(weights)
    version = [file.stat().st_size, file.stat().st_mtime] if file.is_file() else []
    return [spec, dtype, *version, metrics.lpips_net, *metrics.names]


def measure(
    name: str,
    answer: Answer,
    groups: dict[Group, list[Triplet]],
    metrics: Metrics,
    out: Path,
    made_with: list,
) -> dict[Group, dict]:
    """Means of each group; rows and pictures are stored under `out` and used again."""
    means = {}
    with ProgressBar(total=sum(map(len, groups.values())), desc=name, unit="picture") as bar:
        for group, triplets in groups.items():
            file = out / name / f"{'-'.join(group)}.json"
            keys = [t.key for t in triplets]
            if file.exists():
                stored = json.loads(file.read_text())
                if stored["keys"] == keys and stored.get("made_with") == made_with:
                    means[group] = stored["mean"]
                    bar.update(len(triplets))
                    continue
            judge, rows, seconds = FixingMetrics(metrics), {}, []
            for triplet in triplets:
                render, truth = read_render(triplet.render)[0], read_image(triplet.truth)
                began = time.perf_counter()
                fixed = answer(triplet, render)
                seconds.append(time.perf_counter() - began)
                rows[triplet.key] = judge(render, fixed, truth)
                save_png(out / name / "fixed" / f"{triplet.key}.png", fixed)
                bar.update()
            mean = average(list(rows.values())) | judge.pool()
            mean |= {"seconds": sorted(seconds)[len(seconds) // 2], "pictures": len(rows)}
            mean["gain_median"] = median(r["gain_psnr"] for r in rows.values())
            mean["gain_error"] = standard_error([r["gain_psnr"] for r in rows.values()])
            mean["worse"] = sum(r["gain_psnr"] < 0 for r in rows.values()) / len(rows)
            write_json(file, {"keys": keys, "made_with": made_with, "mean": mean, "rows": rows})
            means[group] = mean
    return means


def standard_error(values: list[float]) -> float | None:
    """Standard error of the mean of independent values; None for fewer than two."""
    if len(values) < 2:
        return None
    return stdev(values) / len(values) ** 0.5


def average(rows: list[dict]) -> dict[str, float | None]:
    """Mean of each number over the rows that have it; None where none has."""
    names = rows[0]
    means = {}
    for name in names:
        values = [row[name] for row in rows if row[name] is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def format_error(means: dict) -> str:
    """The standard error of the gain, as it follows the gain in the table."""
    error = means.get("gain_error")
    return "" if error is None else f" ± {error:.2f}"


def format_table(results: dict[str, dict[Group, dict]]) -> str:
    """Markdown: a line for each group and fixer. Gains are positive where fixing helped."""
    first = next(iter(next(iter(results.values())).values()))
    others = [name for name in METRICS if name != "psnr" and first.get(f"gain_{name}") is not None]
    gains = "".join(f"{METRICS[name].label} gain | " for name in others)
    lines = [
        "| capture | strategy | fixer | PSNR of the render | fixed | gain | median | "
        f"{gains}gain on good pixels | on bad | made worse | s a picture |",
        "|---" * (11 + len(others)) + "|",
    ]
    for group in next(iter(results.values())):
        for name, means in results.items():
            m = means[group]
            good, bad = (
                "" if m[f"gain_psnr_{w}"] is None else f"{m[f'gain_psnr_{w}']:+.2f}"
                for w in ("good", "bad")
            )
            gains = "".join(f"{m[f'gain_{metric}']:+.4f} | " for metric in others)
            lines.append(
                f"| {group[0]} | {group[1]} | {name} | {m['render_psnr']:.2f} | {m['psnr']:.2f} | "
                f"{m['gain_psnr']:+.2f}{format_error(m)} | {m['gain_median']:+.2f} | "
                f"{gains}{good} | {bad} | {100 * m['worse']:.0f} % | "
                f"{m['seconds']:.2f} |"
            )
    return "\n".join(lines) + "\n"


def write_sheets(name: str, groups: dict[Group, list[Triplet]], out: Path) -> None:
    """Write random and worst cases of a fixer: render, reference, fixed, truth, error maps."""
    rows: dict[str, dict] = {}
    for group in groups:
        rows |= json.loads((out / name / f"{'-'.join(group)}.json").read_text())["rows"]
    triplets = {t.key: t for members in groups.values() for t in members}
    drawn = sorted(random.Random(0).sample(sorted(rows), min(SHOWN, len(rows))))
    worst = sorted(rows, key=lambda key: rows[key]["gain_psnr"])[:WORST]
    for kind, keys in (("random", drawn), ("worst", worst)):
        lines = []
        for key in keys:
            triplet = triplets[key]
            render, truth = read_render(triplet.render)[0], read_image(triplet.truth)
            fixed = read_image(out / name / "fixed" / f"{key}.png")
            warped = all(r.warped for r in triplet.references)
            guides = Guides(1, warped).read_references(triplet, render)
            pictures = [render, *guides, fixed, truth, draw_error_map(render, truth)]
            line = join_side_by_side([*pictures, draw_error_map(fixed, truth)], gap=2)
            before, after = (rows[key][f"{which}psnr"] for which in ("render_", ""))
            title = f"{key}: render {before:.2f} dB, fixed {after:.2f} dB ({after - before:+.2f})"
            strip = np.asarray(draw_caption(Cell(line, title), line.shape[1], LINE))
            lines.append(np.concatenate((strip, to_uint8(line))))
        width = max(line.shape[1] for line in lines)
        whole = [
            np.pad(line, ((0, 2), (0, width - line.shape[1]), (0, 0)), constant_values=255)
            for line in lines
        ]
        save_png(out / f"{name}_{kind}.png", np.concatenate(whole))
        log.info("%s, from above: %s", kind, ", ".join(keys))


def main() -> None:
    """Measure each fixer, then write table.md, metrics.json and the first fixer's sheets."""
    a = parse_command(Arguments, "python -m benchmarks.quality.proof")
    if a.per_group < 1 or not a.lists:
        raise ValueError("give at least one list, and --per_group at least 1")
    names = [spec.partition("=")[0] for spec in a.fixers]
    if len(set(names)) < len(names):
        raise ValueError("--fixers: give each a NAME of its own")
    groups = choose_triplets(a)
    metrics, results = Metrics(a.lpips_net, backbones=a.backbones), {}
    if metrics.lpips_reason:
        log.warning(metrics.lpips_reason)
    for spec in a.fixers:
        name, answer = load_answer(spec, a.dtype)
        made_with = describe_answer(spec, a.dtype, metrics)
        results[name] = measure(name, answer, groups, metrics, a.out, made_with)
    text = format_table(results)
    sys.stdout.write(text)
    (a.out / "table.md").write_text(text)
    write_json(
        a.out / "metrics.json",
        {name: {"/".join(g): m for g, m in means.items()} for name, means in results.items()},
    )
    write_sheets(next(iter(results)), groups, a.out)


if __name__ == "__main__":
    run_command(main)
