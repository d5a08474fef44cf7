# A few procedural triplets with real artifacts: renders of splats that were stopped too early.
from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from evaluation.pictures import save_png
from models.gsvar import GSVARConfig
from reconstruction import Config, optimise
from reconstruction.rendering import render_view
from scenes import load
from scenes.procedural import write
from triplets import manifest
from triplets.manifest import Reference, Triplet, View

SIZE = 64


@pytest.fixture(scope="session")
def triplets(tmp_path_factory) -> Path:
    """data.json of 10 training and 2 validation entries of 64x64, references and cameras."""
    folder = tmp_path_factory.mktemp("triplets")
    write(folder / "scene", 3, kind="tabletop", n_views=12, width=SIZE, height=SIZE, points=800)
    scene = load(folder / "scene", split="all", progress=False)
    splats = optimise(scene, Config(max_steps=150))
    entries, config = [], Config()
    with torch.no_grad():
        for i in range(len(scene)):
            render = render_view(splats, scene.cameras[i], config).colors[0].clamp(0, 1)
            save_png(folder / "renders" / f"{i:05d}.png", render)
            save_png(folder / "gt" / f"{i:05d}.png", scene.image(i))
    views = [
        View(tuple(map(tuple, m.tolist())), tuple(map(tuple, k.tolist())), SIZE, SIZE)
        for m, k in zip(scene.cameras.viewmats, scene.cameras.Ks, strict=True)
    ]
    for i in range(len(scene)):
        near = sorted((j for j in range(len(scene)) if j != i), key=lambda j: abs(i - j))[:2]
        references = tuple(Reference(folder / "gt" / f"{j:05d}.png", views[j]) for j in near)
        entries.append(
            Triplet(
                key=f"table_underfitting_120_{i:05d}",
                render=folder / "renders" / f"{i:05d}.png",
                truth=folder / "gt" / f"{i:05d}.png",
                references=references,
                camera=views[i],
            )
        )
    held = entries[3], entries[8]
    learnt = [entry for entry in entries if entry not in held]
    path = folder / "data.json"
    manifest.write(path, {"train": learnt, "val": held}, "gsvar")
    return path


def sizes(**changes) -> GSVARConfig:
    """A model of under a million parameters, for 64x64."""
    values = {
        "depth": 2,
        "width": 64,
        "heads": 2,
        "patch_nums": "1_2_3_4_6_8",
        "prefix_channels": (16, 24, 32, 48),
        "refiner_width": 48,
        "refiner_blocks": 2,
        "vqvae_width": 16,
        "vqvae_multipliers": (1, 2, 2, 2),
        "vqvae_blocks": 1,
        "vqvae_groups": 8,
        "latent_channels": 8,
        "vocabulary": 128,
        "ref_attends": "self",
    }
    return GSVARConfig(**{**values, **changes})


@pytest.fixture(scope="session")
def preset(tmp_path_factory) -> Path:
    """The sizes as a file for --preset."""
    path = tmp_path_factory.mktemp("preset") / "nano.json"
    path.write_text(json.dumps(asdict(sizes())))
    return path
