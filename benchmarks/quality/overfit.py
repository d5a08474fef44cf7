# A sanity check: all three stages learn 4 triplets by heart and are judged on those 4.
#   python -m benchmarks.quality.overfit
from __future__ import annotations

import json
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluation.metrics import Metrics
from evaluation.pictures import save_png
from fixers.gsvar import GSVARFixer
from models.gsvar import loading
from reconstruction import Config, optimise
from reconstruction.rendering import render_view
from runtime.command import run_command
from runtime.flags import parse_command
from scenes import load
from scenes.procedural import write
from training.gsvar import commands
from training.gsvar.flags import BridgeFlags, LatentFlags, TokenizerFlags, parse_train
from training.gsvar.validation import predict_by_tokenizer
from training.validation import TripletValidation, predict_by_fixing
from triplets import manifest
from triplets.manifest import Triplet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arguments:
    """Train the three stages on 4 triplets of a procedural scene and print the PSNR of each."""

    results: Path = Path("results/overfit")
    """Everything goes here; the same command goes on."""
    preset: str = "tiny"
    """Sizes of the model."""
    size: int = 128
    """Pixels of a picture's side: the preset's."""
    steps: tuple[int, int, int] = (500, 250, 250)
    """Of the three stages."""
    rate: float = 2e-3
    """Learning rate."""


def triplets(folder: Path, size: int) -> Path:
    """Renders of splats that were stopped after 150 steps, every third view of 12; their list."""
    path = folder / "data.json"
    if path.exists():
        return path
    write(folder / "scene", 3, kind="tabletop", n_views=12, width=size, height=size, points=2000)
    scene = load(folder / "scene", split="all", progress=False)
    config = Config(max_steps=150)
    splats = optimise(scene, config)
    entries = []
    for i in range(0, 12, 3):
        with torch.no_grad():
            render = render_view(splats, scene.cameras[i], config).colors[0].clamp(0, 1)
        files = [folder / kind / f"{i:05d}.png" for kind in ("renders", "gt", "ref")]
        for file, image in zip(files, (render, scene.image(i), scene.image(i + 1)), strict=True):
            save_png(file, image)
        entries.append(Triplet(f"tabletop_{i:05d}", *files))
    manifest.write(path, {"train": entries}, "gsvar")
    return path


def main() -> None:
    """Train the stages in order and print PSNR and minutes."""
    a = parse_command(Arguments, "python -m benchmarks.quality.overfit")
    data = triplets(a.results / "data", a.size)
    shared = [f"--json_path={data}", f"--results={a.results}", f"--tblr={a.rate}", "--wp=20"]
    shared += ["--batch_size=4", "--workers=0", "--eval_freq=1000"]
    vqvae, latent = a.results / "vq/vqvae-ckpt-last.pth", a.results / "ar/ar-ckpt-last.pth"
    runs = (
        (commands.train_tokenizer, TokenizerFlags, "vq", [f"--preset={a.preset}"]),
        (
            *(commands.train_latent, LatentFlags, "ar"),
            [f"--preset={a.preset}", f"--vae_model_path={vqvae}", "--alng=0.1", "--hd=1"],
        ),
        (
            *(commands.train_bridge, BridgeFlags, "vae"),
            [
                *(f"--var_pretrain_path={latent}", "--train_decoder=True", "--crops=1"),
                f"--cache_dir={a.results / 'cache'}",
            ],
        ),
    )
    minutes = []
    for steps, (run, kind, name, own) in zip(a.steps, runs, strict=True):
        began = time.monotonic()
        run(parse_train(kind, [*shared, *own, f"--steps={steps}", f"--exp_name={name}"], "", ""))
        minutes.append((time.monotonic() - began) / 60)
    model = loading.load(a.results / "vae/vae-ckpt-last.pth")
    validation = TripletValidation(manifest.read(data, ["train"]), Metrics(None))
    undecoded = loading.load(latent)  # stage 2 teaches the decoder to lean on the bridge
    tokens, _ = validation.measure(predict_by_tokenizer(undecoded))
    fixed, pictures = validation.measure(predict_by_fixing(GSVARFixer(model, bridge=True).fix))
    for key, picture in pictures.items():
        save_png(a.results / "pictures" / f"{key}.png", picture)
    summary = {
        "render": fixed["render_psnr"],
        "fixed": fixed["psnr"],
        "truth through the tokens": tokens["psnr"],
        "minutes": [round(m, 1) for m in minutes],
    }
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    run_command(main)
