# What a training run writes down: its numbers as lines, a table and curves, and its pictures; all
# of that to Weights & Biases too where that is wanted and works.
from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from evaluation.pictures import save_png, to_uint8
from runtime.files import write_bytes

log = logging.getLogger(__name__)

Row = dict[str, object]

# They are in the table.
UNPLOTTED = ("step", "kind", "epoch", "wd", "weight_decay", "seconds", "memory_gb")
RENDER = "render_"  # begins the names of the unfixed render's metrics
CURVE_POINTS = 1000
SMOOTHING = 50  # a curve is averaged over one part in so many of its length
WANDB_SECONDS = 10  # to reach the service at the start; to send what is left at the end


class Journal:
    """The files of a run, in `folder`: metrics.jsonl, metrics.csv, training.png and val/.

    start_step: steps that are done already. Later lines of metrics.jsonl are dropped, for a killed
        run came further than its last checkpoint; 0 empties the file.
    name, settings, project: of the run, for Weights & Biases; wandb: whether to log there.
    wandb_id: its run to go on with; default: the one in <folder>/wandb_id.txt, if start_step > 0.
    wandb_mode: "online" or "offline". Without a network or a login, online becomes offline; where
        that fails too there are the files only. A line in the log says so; it never raises, never
        asks at a terminal, and waits about 10 s at most.

    Every method raises OSError for a file that cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        name: str,
        settings: Mapping[str, object],
        start_step: int = 0,
        project: str = "var",
        wandb: bool = False,
        wandb_id: str | None = None,
        wandb_mode: str = "online",
    ):
        self.folder = Path(folder)
        self.name = name
        self.lines = self.folder / "metrics.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        _drop_after(self.lines, start_step)
        self._stale = False  # whether lines were written since the last flush
        self._wandb = None
        if wandb:
            id_file = self.folder / "wandb_id.txt"
            if wandb_id is None and start_step > 0 and id_file.exists():
                wandb_id = id_file.read_text().strip() or None
            self._wandb = _start_wandb(
                self.folder, wandb_mode, project=project, name=name, id=wandb_id, config=settings
            )
            if self._wandb is not None:
                write_bytes(id_file, f"{self._wandb.id}\n".encode())

    def train(self, step: int, values: Mapping[str, float]) -> None:
        """A line of kind "train", after `step` steps; numbers that are not finite become null."""
        self._write(step, "train", values, {})

    def validate(
        self,
        step: int,
        values: Mapping[str, float | None],
        pictures: Mapping[str, np.ndarray | Tensor],
    ) -> None:
        """A line of kind "val", and the pictures as <folder>/val/<step, 7 digits>/<name>.png.

        pictures: [H, W, 3], floats in [0, 1] or uint8. `values` may hold metrics of the unfixed
        render beside those of the prediction: render_psnr beside psnr.
        """
        shown = {}
        for name, picture in pictures.items():
            # NumPy knows no bfloat16
            floats = isinstance(picture, Tensor) and picture.is_floating_point()
            shown[name] = to_uint8(picture.float() if floats else picture)
            file = name.replace("/", "_").replace(os.sep, "_")
            save_png(self.folder / "val" / f"{step:07d}" / f"{file}.png", shown[name])
        self._write(step, "val", values, shown)

    def flush(self, curves: bool = True) -> None:
        """Write metrics.csv, all lines with the union of their columns, and training.png, which
        takes seconds (unless without `curves`)."""
        self._stale = False
        rows = _read(self.lines)
        if not rows:
            return
        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(self.folder / "metrics.csv", table.getvalue().encode())
        if curves:
            write_bytes(self.folder / "training.png", draw(rows, self.name))

    def close(self) -> None:
        """Flush if lines were written since, and end the run at Weights & Biases. A second time it
        does nothing."""
        try:
            if self._stale:
                self.flush()
        finally:
            self._to_wandb(lambda run: run.finish())
            self._wandb = None

    def _write(
        self,
        step: int,
        kind: str,
        values: Mapping[str, float | None],
        pictures: Mapping[str, np.ndarray],
    ) -> None:
        row: Row = {name: _number(value) for name, value in values.items()}
        row = {"step": int(step), "kind": kind, **row}
        line = json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
        self._stale = True
        with self.lines.open("ab") as file:  # closed each time: on the disk, or an OSError now
            file.write(line.encode())

        def send(run: object) -> None:
            from wandb import Image

            sent = {name: v for name, v in row.items() if name not in ("step", "kind")}
            sent = {name: v for name, v in sent.items() if v is not None}
            sent.update({name: Image(picture) for name, picture in pictures.items()})
            run.log({"step": int(step), **{f"{kind}/{name}": v for name, v in sent.items()}})

        self._to_wandb(send)

    def _to_wandb(self, do: Callable[[object], None]) -> None:
        """Weights & Biases must not end a training: its first error ends the logging there."""
        if self._wandb is None:
            return
        try:
            do(self._wandb)
        except Exception as error:
            log.warning("Weights & Biases failed (%s); logging to files only.", _first_line(error))
            self._wandb = None


# lines ---------------------------------------------------------------------------------------


def _number(value: float | Tensor | None) -> float | int | None:
    """A number of Python's that JSON has; None for NaN and infinities."""
    value = value.item() if hasattr(value, "item") else value
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(value)


def _read(path: Path) -> list[Row]:
    """The lines that are whole: a killed run may leave a torn one."""
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and "kind" in row:
            rows.append(row)
    return rows


def _drop_after(path: Path, step: int) -> None:
    """Keep the whole lines of up to `step` steps; none of a run that begins."""
    if not path.exists():
        return
    before = path.read_bytes()
    rows = [row for row in _read(path) if step > 0 and row["step"] <= step]
    after = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if after != before:
        write_bytes(path, after)


# curves --------------------------------------------------------------------------------------


def draw(rows: Sequence[Row], title: str) -> bytes:
    """Curves over steps, as a PNG: a panel for each value of the "train" rows, the learning rate
    after them, and one for each of the "val" rows, the unfixed render's dashed in the same."""
    from matplotlib.figure import Figure

    train = [row for row in rows if row["kind"] == "train"]
    val = [row for row in rows if row["kind"] == "val"]
    learned = _columns(train)
    learned.sort(key=lambda name: (name == "lr") - (name == "loss"))  # loss first, lr last
    judged = _columns(val)
    renders = [RENDER + name for name in judged if RENDER + name in judged]
    judged = [name for name in judged if name not in renders]
    count = max(1, len(learned) + len(judged))
    across = min(count, 3 if count <= 9 else 4)
    down = -(-count // across)
    figure = Figure((4.6 * across, 2.7 * down + 0.4), dpi=110, layout="constrained")
    last = max((row["step"] for row in rows), default=0)
    figure.suptitle(f"{title}, {last:,} steps", fontsize=12, parse_math=False)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.set_axis_off()
    for axis, name in zip(axes, learned, strict=False):
        _learning_panel(axis, name, *_curve(train, name))
    for axis, name in zip(axes[len(learned) :], judged, strict=False):
        render = _curve(val, RENDER + name) if RENDER + name in renders else None
        _judging_panel(axis, name, _curve(val, name), render)
    for i, axis in enumerate(axes[:count]):
        _dress(axis, last)
        if i + across >= count:
            axis.set_xlabel("step", fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _columns(rows: Sequence[Row]) -> list[str]:
    """Names of the values that are a number somewhere, as they first appear."""
    numbers = (name for row in rows for name, value in row.items() if value is not None)
    return [name for name in dict.fromkeys(numbers) if name not in UNPLOTTED]


def _curve(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values [N]; NaN for null. Within what axes can be drawn for: +-1e60."""
    points = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, np.where(np.abs(values) < 1e-60, 0.0, values.clip(-1e60, 1e60))


def _learning_panel(axis: object, name: str, steps: np.ndarray, values: np.ndarray) -> None:
    """A smoothed line over the faint raw one; red ticks where there was no finite number."""
    window = 1 if name == "lr" else max(1, len(values) // SMOOTHING)
    smooth = _average(values, window)
    if window > 1:
        axis.plot(*_thin(steps, values), color="C0", alpha=0.25, linewidth=0.7)
    marker = "o" if len(steps) <= 30 else None
    axis.plot(*_thin(steps, smooth), color="C0", linewidth=1.6, marker=marker, markersize=3)
    missing = steps[np.isnan(values)]
    label = name
    if len(missing):
        label += f" ({len(missing):,} not finite)"
        ticks = missing[:: -(-len(missing) // CURVE_POINTS)]
        foot = axis.get_xaxis_transform()
        axis.plot(ticks, np.full(len(ticks), 0.02), "|", color="C3", transform=foot)
    _scale(axis, values, smooth)
    _head(axis, label, f"{_last(smooth):.4g}")


def _judging_panel(
    axis: object,
    name: str,
    curve: tuple[np.ndarray, np.ndarray],
    render: tuple[np.ndarray, np.ndarray] | None,
) -> None:
    steps, values = curve
    marker = "o" if len(steps) <= 100 else None
    axis.plot(steps, values, color="C2", linewidth=1.4, marker=marker, markersize=3, label="fixed")
    text = f"{_last(values):.4g}"
    every = values
    if render is not None:
        style = {"color": "0.35", "linewidth": 1.2, "linestyle": "--"}
        axis.plot(*render, **style, label="render")
        if len(render[0]) == 1:  # one point makes no line
            axis.axhline(render[1][0], **style)
        axis.legend(fontsize=8, frameon=False, loc="best")
        text += f" (render {_last(render[1]):.4g})"
        every = np.concatenate([values, render[1]])
    _scale(axis, every, every)
    _head(axis, f"validation {name}", text)


def _head(axis: object, left: str, right: str) -> None:
    axis.set_title(left, loc="left", fontsize=10, fontweight="bold", parse_math=False)
    axis.set_title(right, loc="right", fontsize=9, color="0.3")


def _dress(axis: object, last: int) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    axis.set_xlim(-0.02 * max(last, 1), 1.03 * max(last, 1))
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    if axis.get_yscale() == "log":
        low, high = axis.get_ylim()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter("{x:.4g}")  # never a factor above the axis
    axis.grid(color="0.92", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, color="0.6")


def _scale(axis: object, values: np.ndarray, line: np.ndarray) -> None:
    """Logarithmic where positive values span more than two decades. Single spikes may leave the
    picture, the line does not."""
    values, line = values[np.isfinite(values)], line[np.isfinite(line)]
    if len(values) == 0:
        return
    positive = values[values > 0]
    logarithmic = values.min() >= 0 and len(positive) and positive.max() > 100 * positive.min()
    if logarithmic:
        axis.set_yscale("log", nonpositive="mask")
        values, line = np.log10(positive), np.log10(line[line > 0])
    bulk = np.percentile(values, (0.5, 99.5)) if len(values) > 200 else values
    low, high = min(bulk.min(), line.min()), max(bulk.max(), line.max())
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - room, high + room
    axis.set_ylim(*((10**low, 10**high) if logarithmic else (low, high)))


def _average(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over about `window` neighbours, near ones weighing more, without those that are NaN."""
    if window <= 1:
        return values
    weights = np.bartlett(window + 2)[1:-1]
    finite = np.isfinite(values)
    sums = np.convolve(np.where(finite, values, 0.0), weights, "same")
    shares = np.convolve(finite.astype(np.float64), weights, "same")
    return np.divide(sums, shares, out=np.full(len(values), np.nan), where=shares > 0)


def _thin(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every so many neighbours the least and the greatest, so that spikes are still seen."""
    stride = len(values) // CURVE_POINTS
    if stride < 4:
        return steps, values
    whole = len(values) // stride * stride
    parts = values[:whole].reshape(-1, stride)
    filled = np.where(np.isnan(parts), np.inf, parts), np.where(np.isnan(parts), -np.inf, parts)
    picks = np.stack([filled[0].argmin(1), filled[1].argmax(1)], 1)
    picks = np.sort(picks, 1) + np.arange(len(parts))[:, None] * stride
    places = np.unique(np.concatenate([picks.ravel(), np.arange(whole, len(values))]))
    return steps[places], values[places]


def _last(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return finite[-1] if len(finite) else math.nan


# Weights & Biases ----------------------------------------------------------------------------


def _start_wandb(
    folder: Path, mode: str, *, config: Mapping[str, object], **about: str | None
) -> object | None:
    """A run of Weights & Biases that writes to <folder>/wandb; None, and a line in the log, where
    there can be none."""
    try:
        from wandb import Settings, init
    except ImportError:  # also where `wandb` is only a folder that lies in the way
        log.warning("Weights & Biases is not installed (pip install wandb); logging to files only.")
        return None
    except Exception as error:
        log.warning(
            "Weights & Biases does not start (%s); logging to files only.", _first_line(error)
        )
        return None
    wanted = {
        "console": "off",  # or it takes over stdout
        "silent": True,
        "init_timeout": WANDB_SECONDS,
        "finish_timeout": WANDB_SECONDS,
        "login_timeout": 1,
    }
    plain = (bool, int, float, str, type(None))
    config = {key: v if isinstance(v, plain) else str(v) for key, v in config.items()}
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            known = getattr(Settings, "model_fields", None) or Settings.__annotations__
            settings = Settings(**{key: v for key, v in wanted.items() if key in known})
            resume = {"resume": "allow"} if attempt == "online" else {}
            with _no_terminal():
                run = init(
                    dir=str(folder),
                    mode=attempt,
                    config=config,
                    settings=settings,
                    **resume,
                    **about,
                )
            # its own count of steps refuses to go back, which a run that goes on must
            run.define_metric("*", step_metric="step")
            return run
        except Exception as error:
            why = _first_line(error)
            if attempt != "offline":
                log.warning(
                    "Weights & Biases cannot be reached (%s); logging offline, to %s.",
                    why,
                    folder / "wandb",
                )
            else:
                log.warning("Weights & Biases does not start (%s); logging to files only.", why)
    return None


@contextmanager
def _no_terminal() -> Iterator[None]:
    """Nothing to read from, so that nothing is asked."""
    before = sys.stdin
    with Path(os.devnull).open() as nothing:
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = before


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
