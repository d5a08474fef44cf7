# An evaluation's folder: metrics.json of each scene, and tables of all.
from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection
from pathlib import Path

from evaluation.metrics import average
from runtime.files import write_bytes, write_json

Result = dict
"""A scene's metrics.json, with "folder"."""


def read_results(folder: Path, names: Collection[str] | None = None) -> list[Result]:
    """The scenes' results, by the names of their folders (None: all that are there).

    FileNotFoundError where there is none, ValueError for a file that is none."""
    files = sorted(Path(folder).glob("[0-9]" * 6 + "/metrics.json"))
    results = []
    for file in files:
        if names is not None and file.parent.name not in names:
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            content["summary"]["scene_name"], content["per_view"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no result of a scene ({error})") from None
        results.append(content | {"folder": file.parent.name})
    if not results:
        raise FileNotFoundError(f"{folder} has no results 000000/metrics.json")
    return results


def list_metrics(results: list[Result]) -> list[str]:
    """The names of the metrics of all scenes."""
    return [name for name in results[0]["summary"] if name != "scene_name"]


def write_summary(results: list[Result], folder: Path) -> dict[str, float | None]:
    """Write summary.csv, average_metrics.txt and metrics.json, and return the means over scenes."""
    names = list_metrics(results)
    means = average([{name: r["summary"].get(name) for name in names} for r in results])
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["Index", "scene_name", *names])
    for result in results:
        own = result["summary"]
        table.writerow([result["folder"], own["scene_name"], *(own.get(n) for n in names)])
    table.writerow(["average", "", *means.values()])
    write_bytes(folder / "summary.csv", text.getvalue().encode())
    lines = [f"{name}: {'n/a' if v is None else f'{v:.4f}'}\n" for name, v in means.items()]
    write_bytes(folder / "average_metrics.txt", "".join(lines).encode())
    write_json(folder / "metrics.json", {"scenes": len(results), "mean": means})
    return means
