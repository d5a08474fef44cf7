# What adding a photo and drawing all targets costs, over the number of photos, as published:
#   python eval_efficiency.py --config configs/Efficient-LVSM.yaml training.num_input_views=64
from __future__ import annotations

import csv
import io
import logging
import sys
import time
from pathlib import Path

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from examples.efficient_lvsm.config import Config, read_config, show_help
from runtime.command import choose_device, run_command

log = logging.getLogger(__name__)

ABOUT = """
Time incremental inference: python eval_efficiency.py --config configs/Efficient-LVSM.yaml
training.num_input_views=64 training.num_target_views=8; other settings of that file likewise.

Photos are added one by one to a cache; after each all targets are drawn. efficiency.csv
(incremental_result.csv) gets milliseconds and peak memory (GB; on a CPU the process's) for each
number of photos, means of efficiency.repetitions after efficiency.warmup; a plot is beside it.
Weights are random. `python -m benchmarks.speed.efficient_lvsm` compares with LVSM.
"""


def main() -> None:
    """Measure and write. Raises ValueError or OSError, naming the setting or file."""
    show_help(ABOUT)
    config = read_config(sys.argv[1:])
    for key in ("training.num_input_views", "training.num_target_views", "efficiency.repetitions"):
        if config[key] < 1:
            raise ValueError(f"{key}={config[key]} must be at least 1")

    from runtime.files import make_writable_folder, write_bytes

    path = Path(config["efficiency.csv"])
    if path.suffix != ".csv":
        raise ValueError(f"efficiency.csv={path} must end in .csv")
    make_writable_folder(path.absolute().parent)
    rows = measure(config)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["v_input", "v_target", "memory", "time"])
    table.writerows([n, m, f"{memory:.4f}", f"{ms:.3f}"] for n, m, memory, ms in rows)
    write_bytes(path, text.getvalue().encode())
    draw_plot(rows, path.with_suffix(".png"))
    log.info("%s, %s", path, path.with_suffix(".png"))


def measure(config: Config) -> list[tuple[int, int, float, float]]:
    """Photos, targets, peak memory in GB and milliseconds, for each number of photos."""
    import torch

    from examples.efficient_lvsm.train import make_model
    from models.efficient_lvsm import EfficientLVSM, EfficientLVSMConfig
    from models.efficient_lvsm.model import COLORS, join
    from models.layers.rays import CHANNELS
    from models.layers.slot_cache import SlotCache
    from runtime.memory import measure_peak_gigabytes
    from runtime.precision import choose_dtype
    from runtime.progress import ProgressBar

    device = choose_device(None)
    dtype = choose_dtype(torch.bfloat16, device) if config["training.use_amp"] else torch.float32
    own = make_model(config)
    sizes = {"depth": own.depth, "width": own.width, "head_dim": own.head_dim, "patch": own.patch}
    if None in sizes.values():
        raise ValueError("training.resume_ckpt has no part in this: leave it out")
    network = EfficientLVSMConfig(**sizes, image_size=own.image_size)
    model = EfficientLVSM(network).to(device, dtype).eval()
    photos, targets = config["training.num_input_views"], config["training.num_target_views"]
    tokens, side = (network.image_size // network.patch) ** 2, network.image_size

    def noise(views: int, channels: int) -> torch.Tensor:
        return torch.randn(1, views, channels, side, side, device=device, dtype=dtype)

    photo, rays = noise(1, COLORS), noise(1, CHANNELS[network.plucker])
    asked = noise(targets, CHANNELS[network.plucker])
    caches = [
        SlotCache.empty(1, network.heads, photos * tokens, network.head_dim, device, dtype)
        for _ in range(network.depth)
    ]
    times, peaks = [[] for _ in range(photos)], [0.0] * photos
    repeats = config["efficiency.warmup"] + config["efficiency.repetitions"]
    bar = ProgressBar(desc="measuring", total=repeats * photos, unit="view")
    with bar, torch.inference_mode():
        for repeat in range(repeats):
            for cache in caches:
                for slot in tuple(cache.slots):
                    cache.remove(slot)
            for i in range(photos):
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                    torch.cuda.synchronize(device)
                start = time.perf_counter()
                contexts = join(model.encode(photo, rays))
                for cache, context in zip(caches, contexts, strict=True):
                    cache.add(i, *context)
                model.decode(asked, [cache.read() for cache in caches])
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if repeat >= config["efficiency.warmup"]:
                    times[i].append(1e3 * (time.perf_counter() - start))
                    peaks[i] = max(peaks[i], measure_peak_gigabytes(device))
                bar.update()
    return [(i + 1, targets, peaks[i], sum(t) / len(t)) for i, t in enumerate(times)]


def draw_plot(rows: list[tuple[int, int, float, float]], path: Path) -> None:
    """Milliseconds and memory over the number of photos."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from runtime.files import atomic_path

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    photos = [row[0] for row in rows]
    axes.plot(photos, [row[3] for row in rows], "o-", color="C0", label="time")
    axes.set(xlabel="input views", ylabel="milliseconds", ylim=(0, None))
    axes.set_title(f"Adding one view and rendering {rows[0][1]}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    memory = axes.twinx()
    memory.plot(photos, [row[2] for row in rows], "s--", color="C1", label="memory")
    memory.set(ylabel="peak memory (GB)", ylim=(0, None))
    lines = [*axes.get_lines(), *memory.get_lines()]
    axes.legend(lines, [line.get_label() for line in lines], loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


if __name__ == "__main__":
    run_command(main)
