# What the report says of the rounds: three ways to the same views, and what became of each round.
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import imageio.v3 as imageio
import numpy as np

from evaluation.metrics import METRICS
from evaluation.pictures import to_uint8
from evaluation.report import TRUTH, Report, ReportView
from reconstruction.evaluate import Evaluation, HeldOutView
from reconstruction.result import ResultFolder
from reconstruction.rounds.gate import judge_post
from reconstruction.rounds.record import Round
from reconstruction.state import History


@dataclass(frozen=True)
class Control:
    """The same run without fixing: its numbers, and each view's numbers and render."""

    stats: dict[str, float | None]
    views: dict[str, dict[str, float | None]]
    renders: dict[str, np.ndarray]
    minutes: float | None

    @classmethod
    def read(cls, folder: ResultFolder, step: int) -> Control | None:
        """At that step of a run in the folder's `vanilla`; None where it was not measured."""
        own, minutes = folder.vanilla, None
        try:
            stats = json.loads(own.val_stats(step).read_text())
            views = json.loads(own.per_view_stats(step).read_text())
            if own.train_stats(step).exists():
                minutes = json.loads(own.train_stats(step).read_text())["ellipse_time"] / 60
            files = sorted((own.val_renders(step) / "Pred").glob("*.png"))
            renders = dict(zip(views, map(imageio.imread, files), strict=True))
        except (OSError, ValueError, KeyError):
            return None
        return cls(stats, views, renders, minutes)


@dataclass(frozen=True)
class Words:
    """What the report calls the generated views: as a way to the held-out views, as a picture,
    before the names of their metrics, and where their time is told."""

    way: str = "renders fixed"
    picture: str = "fixed render"
    prefix: str = "fixed"
    time: str = "fixing the held-out renders"

    @classmethod
    def of(cls, title: str | None) -> Words:
        """Those for a generator's title."""
        if title in (None, cls.way):
            return cls()
        return cls(title, title, title, f"held-out views of {title}")


def add_rounds(
    report: Report,
    evaluation: Evaluation,
    control: Control | None,
    rounds: Sequence[Round],
    history: History,
    made_by: str | None = None,
) -> Report:
    """The report with the rounds' story: a line for each way, gains of each view, the rounds, the
    time of each part, and what the views were made by (a generator's title)."""
    words = Words.of(made_by)
    return replace(
        report,
        title=report.title.replace("Reconstruction", "Fix and distil", 1),
        summary=compare_ways(evaluation, control, rounds, history, words),
        views=[collect_pictures(view, control, words) for view in evaluation.views],
        ranked_by="psnr" if control is None else "gain_psnr",
        tables={"Rounds": [describe_round(r) for r in rounds]},
        gains=compute_gains(evaluation, control, words),
        seconds=sum_times(evaluation, control, rounds, history, words),
        facts={**report.facts, **({} if made_by is None else {"novel views": made_by})},
    )


def compare_ways(
    evaluation: Evaluation,
    control: Control | None,
    rounds: Sequence[Round],
    history: History,
    words: Words,
) -> list[dict[str, str | float | None]]:
    """A line for each way to the held-out views: vanilla, distilled, and generated beside that.

    Gains are against the first line and positive where the way is better.
    """
    stats = evaluation.stats
    names = [name for name in METRICS if name in stats]
    beside = sum(r.seconds.get(part, 0.0) for r in rounds for part in ("round", "judging"))
    minutes = (history.seconds + beside) / 60
    base = stats if control is None else control.stats

    def line(way: str, stats: dict, prefix: str, minutes: float | None) -> dict:
        numbers: dict[str, float | None] = {}
        for name in names:
            value, before = stats.get(prefix + name), base.get(name)
            gain = None if None in (value, before) else METRICS[name].sign * (value - before) + 0.0
            numbers |= {name: value, f"gain_{name}": gain}
        return {
            "way": way,
            **numbers,
            "minutes": None if minutes is None else round(minutes, 2),
        }

    lines = [] if control is None else [line("vanilla", control.stats, "", control.minutes)]
    lines.append(line("distilled", stats, "", minutes))
    if stats.get("post_psnr") is not None:
        lines.append(line(words.way, stats, "post_", minutes + evaluation.fixing / 60))
        worth = judge_post(evaluation.agreement)
        lines = [row | {"worth it": worth if row is lines[-1] else ""} for row in lines]
    return lines


def collect_pictures(view: HeldOutView, control: Control | None, words: Words) -> ReportView:
    """A view's pictures in the order in which a reader wants them, and its numbers."""
    images, numbers, against = {"distilled": view.render}, dict(view.metrics), TRUTH
    if view.post is not None:
        against = words.picture
    if control is not None and view.name in control.renders:
        images, against = {"vanilla": control.renders[view.name]} | images, "distilled"
        base = control.views[view.name].get("psnr")
        if base is not None:
            numbers = {"gain_psnr": numbers["psnr"] - base} | numbers
    others = {words.picture: view.post, "reference": view.reference}
    if view.confidence is not None:
        others["confidence"] = np.repeat(to_uint8(view.confidence)[..., None], 3, 2)
    images |= {name: image for name, image in others.items() if image is not None}
    numbers = {key.replace("post_", f"{words.prefix}_"): value for key, value in numbers.items()}
    return ReportView(view.name, images | {TRUTH: view.photo}, numbers, against)


def describe_round(r: Round) -> dict[str, str | float | int | None]:
    """A round's line."""
    return {
        "step": r.step,
        "verdict": r.verdict.value,
        "why": r.why,
        "views": r.views,
        "refused": r.refused,
        "views set aside": len(r.aside),
        "references": len(r.references),
        "agrees better by": None if r.agreement is None else r.agreement - 1,
        "potential": r.potential,
        "consistent": r.consistency,
        "peak GB": r.memory,
    }


def sum_times(
    evaluation: Evaluation,
    control: Control | None,
    rounds: Sequence[Round],
    history: History,
    words: Words,
) -> dict[str, float]:
    """Seconds of each part of the run."""
    parts = {"optimising": history.seconds - sum(r.seconds.get("trial", 0.0) for r in rounds)}
    for r in rounds:
        for name, seconds in r.seconds.items():
            parts[name] = parts.get(name, 0.0) + seconds
    whole = parts.pop("round", 0.0)
    beside = ("optimising", "trial", "judging")
    known = sum(value for name, value in parts.items() if name not in beside)
    parts["rest of the rounds"] = max(0.0, whole - known)
    if evaluation.fixing:
        parts[words.time] = evaluation.fixing
    if control is not None and control.minutes is not None:
        parts["the run without fixing"] = 60 * control.minutes
    return {name: round(value, 2) for name, value in parts.items()}


def compute_gains(
    evaluation: Evaluation, control: Control | None, words: Words
) -> dict[str, list[float]]:
    """How much better than without fixing each held-out view became, in dB."""
    gains: dict[str, list[float]] = {"distilled": [], words.way: []}
    for view in evaluation.views:
        psnr = view.metrics.get("psnr")
        base = psnr if control is None else control.views.get(view.name, {}).get("psnr")
        if base is None:
            continue
        if control is not None:
            gains["distilled"].append(psnr - base)
        if view.metrics.get("post_psnr") is not None:
            gains[words.way].append(view.metrics["post_psnr"] - base)
    return gains
