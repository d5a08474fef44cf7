# An evaluation's results -> pages for a browser:
#   python utils/generate_html.py RESULT_DIR
from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from runtime.command import run_command
from runtime.flags import parse_command

log = logging.getLogger(__name__)

PAGE = 200  # scenes of a page
LOWER = ("lpips",)  # metrics of which less is better, by a part of their name


@dataclass(frozen=True)
class Options:
    """Write RESULT_DIR/index.html, a table of all scenes, and pages of 200 scenes with their
    inputs, targets and metrics. inference.py does it by itself."""

    result_dir: tyro.conf.Positional[Path]
    """Folder of inference.py."""
    output: str = "results.html"
    """Pages are named after it: results_page_1.html."""


def write_pages(folder: Path, output: str = "results.html") -> Path:
    """Write the pages of an evaluation's folder and return index.html. ValueError or
    FileNotFoundError for a folder without results, or an output that is a path."""
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    from evaluation.metrics import average
    from examples.efficient_lvsm.utils.results import list_metrics, read_results
    from runtime.files import write_bytes

    if Path(output).name != output or Path(output).suffix != ".html":
        raise ValueError(f"--output {output}: give the name of a file.html")
    results = read_results(folder)
    names, stem = list_metrics(results), Path(output).stem
    for result in results:
        result["shades"] = shade(result["per_view"], names)
        result["video"] = (folder / result["folder"] / "rendered_video.mp4").exists()
    means = average([{name: r["summary"].get(name) for name in names} for r in results])
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages = [results[i : i + PAGE] for i in range(0, len(results), PAGE)]
    common = {"names": names, "means": means, "files": []}
    common["files"] = [f"{stem}_page_{k}.html" for k in range(1, len(pages) + 1)]
    common["total"] = len(results)
    template = templates.get_template("pages.html.j2")
    for k, page in enumerate(pages):
        text = template.render(**common, results=page, number=k + 1)
        write_bytes(folder / common["files"][k], text.encode())
    places = {r["folder"]: common["files"][i // PAGE] for i, r in enumerate(results)}
    text = template.render(**common, results=results, number=0, places=places)
    return write_bytes(folder / "index.html", text.encode())


def shade(rows: list[dict], names: list[str]) -> list[dict[str, str]]:
    """Of each view's metrics, whether they are among the best, middle or worst third."""
    shades: list[dict[str, str]] = [{} for _ in rows]
    for name in names:
        values = [row.get(name) for row in rows]
        if None in values or len(values) < 2:
            continue
        sign = -1 if any(part in name for part in LOWER) else 1
        order = sorted(range(len(values)), key=lambda i: -sign * values[i])
        for place, i in enumerate(order):
            shades[i][name] = ("good", "middle", "bad")[3 * place // len(order)]
    return shades


def main(options: Options) -> None:
    """Write the pages. Raises ValueError or OSError, naming the file or flag."""
    log.info("pages: %s", write_pages(options.result_dir, options.output))


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python utils/generate_html.py")))
