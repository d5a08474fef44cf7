# Evaluate Efficient-LVSM on RealEstate10K, as published:
#   torchrun --nproc_per_node 4 inference.py --config configs/Efficient-LVSM.yaml
#   inference.checkpoint_dir=efficient_lvsm_res256.pt
from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from examples.efficient_lvsm.config import Config, read_config, show_help
from runtime.command import choose_device, run_command

if TYPE_CHECKING:
    from examples.efficient_lvsm.evaluation import Sample, Settings

log = logging.getLogger(__name__)

INDEX = '{"scene": {"context": [0, 9], "target": [4]}}'
ABOUT = """
Evaluate Efficient-LVSM: python inference.py --config configs/Efficient-LVSM.yaml
inference.checkpoint_dir=WEIGHTS inference.dataset_path=full_list.txt; other settings of that file
as inference.batch_size=4 or `inference.batch_size = 4`. Several GPUs: torchrun --nproc_per_node 4.

For each scene of the index (inference.view_idx_file_path) the targets are drawn from
training.num_input_views inputs and compared with the photos: PSNR, SSIM and LPIPS as the original's
script has them (training.amp_dtype; SSIM and LPIPS of pictures that are not clamped), and, with
inference.exact, in float32 on clamped pictures. inference.inference_out_dir gets a folder for each
scene, summary.csv, average_metrics.txt, metrics.json and pages for a browser (index.html). The same
command goes on with a stopped evaluation.
"""


def main() -> None:
    """Evaluate. Raises ValueError or OSError, naming the setting or file."""
    show_help(ABOUT)
    config = read_config(sys.argv[1:])

    from examples.efficient_lvsm.evaluation import Evaluator, choose_samples
    from runtime.progress import ProgressBar
    from scenes.re10k import list_scenes, read_index
    from training import distributed

    own = config.section("inference")
    settings = make_settings(config)
    for name in ("dataset_path", "view_idx_file_path"):
        if not Path(own[name]).exists():
            raise FileNotFoundError(
                f"inference.{name}={own[name]} does not exist"
                + (f": get pixelSplat's, or write {INDEX}" if name == "view_idx_file_path" else "")
            )
    index = read_index(Path(own["view_idx_file_path"]))
    with distributed.process_group(None) as device:
        device = choose_device(str(device))
        model, weights = load_weights(config, device)
        inputs = config["training.num_input_views"]
        scenes = list_scenes(Path(own["dataset_path"]))
        samples = choose_samples(scenes, index, inputs, own["max_scenes"])
        first = distributed.rank() == 0
        dtype, backbones = choose_precision(config, device), config["training.backbones"]
        if first:
            begin(settings, weights, samples, str(dtype).removeprefix("torch."))
        evaluator = Evaluator(model, settings, dtype, backbones and Path(backbones))
        wait()
        todo = [s for s in samples if not (settings.out / s.folder / "metrics.json").exists()]
        if first and len(todo) < len(samples):
            log.info("%d of %d scenes are done already", len(samples) - len(todo), len(samples))
        share = todo[distributed.rank() :: distributed.world_size()]
        bar = ProgressBar(
            evaluator.run(share), "evaluating", total=len(share), unit="scene", disable=not first
        )
        for _ in bar:
            pass
        wait()
        if first:
            report(samples, settings, config)


def wait() -> None:
    """Until all processes are here."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()


def make_settings(config: Config) -> Settings:
    """What is computed and written. ValueError for numbers that cannot be."""
    from examples.efficient_lvsm.evaluation import Settings

    own = config.section("inference")
    for name in ("batch_size", "render_video_config.num_frames"):
        if own[name] < (2 if "frames" in name else 1):
            raise ValueError(f"inference.{name}={own[name]} is too small")
    if own["max_scenes"] is not None and own["max_scenes"] < 1:
        raise ValueError(f"inference.max_scenes={own['max_scenes']} must be at least 1")
    if config["training.num_input_views"] < 1:
        raise ValueError("training.num_input_views must be at least 1")
    if own["render_video"] and config["training.num_input_views"] < 2:
        raise ValueError("inference.render_video goes from input to input: it needs two")
    return Settings(
        out=Path(own["inference_out_dir"]),
        batch=own["batch_size"],
        exact=own["exact"] and own["compute_metrics"],
        resize=own["resize"],
        metrics=own["compute_metrics"],
        video=own["render_video"],
        frames=own["render_video_config.num_frames"],
        loop=own["render_video_config.loop_video"],
        order=own["render_video_config.order_poses"],
        workers=min(config["training.num_workers"], os.cpu_count() or 1),
    )


def load_weights(config: Config, device):
    """The network and the file it is from: the one named, or a training's best."""
    from generators.efficient_lvsm import load_model

    named = config["inference.checkpoint_dir"]
    path = Path(named or config["training.checkpoint_dir"])
    if path.is_dir():
        files = [f for name in ("best", "last") for f in path.glob(f"*-ckpt-{name}.pth")]
        if not files:
            raise FileNotFoundError(f"{path} has no weights lvsm-ckpt-best.pth (checkpoint_dir)")
        path = files[0]
    if not path.exists():
        raise FileNotFoundError(
            f"inference.checkpoint_dir={path} does not exist: name weights, such as "
            "efficient_lvsm_res256.pt, or a folder of a training"
        )
    model = load_model(path, device=device, dtype="float32")
    sizes = {
        "model.transformer.d": model.config.width,
        "model.transformer.n_layer": model.config.depth,
        "model.image_tokenizer.patch_size": model.config.patch,
        "model.image_tokenizer.image_size": model.config.image_size,
    }
    others = [f"{key}={config[key]} ({own})" for key, own in sizes.items() if config[key] != own]
    if others:
        log.info("the weights' sizes count, not the settings': %s", ", ".join(others))
    return model, path


def choose_precision(config: Config, device):
    """The network's type for the original's metrics; float32 where the device has no other."""
    import torch

    from runtime.precision import choose_dtype

    if not config["training.use_amp"]:
        return torch.float32
    asked = torch.bfloat16 if config["training.amp_dtype"] == "bf16" else torch.float16
    if asked == torch.float16 and device.type == "cpu":
        return torch.float32
    return choose_dtype(asked, device)


def begin(settings: Settings, weights: Path, samples: list[Sample], dtype: str) -> None:
    """The folder of the results. ValueError where it has those of other settings."""
    from runtime.files import make_writable_folder, write_json

    make_writable_folder(settings.out)
    frames = {s.folder: [s.scene.name, s.inputs, s.targets] for s in samples}
    asked = {
        "weights": hash_file(weights),
        "inputs": len(samples[0].inputs),
        "scenes": hashlib.sha256(json.dumps(frames).encode()).hexdigest()[:16],
        "dtype": dtype,
    }
    asked |= {name: getattr(settings, name) for name in ("exact", "resize", "metrics", "video")}
    file, before = settings.out / "settings.json", asked
    if file.exists():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise ValueError(f"{file} is damaged: remove the folder, or name another") from None
    if before != asked:
        name = next(n for n in asked if before.get(n) != asked[n])
        raise ValueError(
            f"{settings.out} has results of {name} {before.get(name)}, not {asked[name]}: name "
            "another inference.inference_out_dir"
        )
    write_json(file, asked)


def hash_file(path: Path) -> str:
    """What tells a file's content from another's."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()[:16]


def report(samples: list[Sample], settings: Settings, config: Config) -> None:
    """Tables of all scenes, printed and written, and the pages."""
    from evaluation.labels import format_table
    from examples.efficient_lvsm.utils.generate_html import write_pages
    from examples.efficient_lvsm.utils.results import read_results, write_summary

    rows = read_results(settings.out, {sample.folder for sample in samples})
    means = write_summary(rows, settings.out)
    if means:
        log.info("%s", format_table([{"scenes": len(rows)} | means]))
    if config["inference.generate_website"]:
        log.info("pages: %s", write_pages(settings.out))
    log.info("results: %s", settings.out)


if __name__ == "__main__":
    run_command(main)
