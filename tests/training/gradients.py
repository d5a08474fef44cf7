# Gradients of one step of every stage on as many processes as torchrun starts:
#   torchrun --nproc-per-node=2 tests/training/gradients.py DATA PRESET OUT
from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import torch

from models.gsvar import GSVAR, GSVARConfig
from training import distributed
from training.bridging import BridgeStage
from training.latent import LatentStage
from training.losses import ImageObjective
from training.order import Order
from training.tokenizing import TokenizerStage
from training.triplets import Batch, TripletDataset
from triplets import manifest

SAMPLES = 4


def model(preset: Path) -> GSVAR:
    torch.manual_seed(0)
    made = GSVAR(GSVARConfig(**json.loads(preset.read_text())))
    with torch.no_grad():  # a new head says the same everywhere: nothing would depend on the data
        made.head.weight.mul_(100)
        for block in made.transformer.blocks:
            block.adaln[1].weight.mul_(1000)
    return made


def stages(preset: Path):
    objective = ImageObjective(None)
    yield "vqvae", TokenizerStage(model(preset), objective, total=10, gan=0.1)
    latent = model(preset)
    yield "ar", LatentStage(latent, corrupt=0.2, both_views=True)
    bridged = model(preset)
    torch.manual_seed(1)
    bridged.vqvae.add_bridge(identity=False)
    yield "vae", BridgeStage(bridged.eval(), objective, train_decoder=True)


def gradients(data: Path, preset: Path) -> dict[str, torch.Tensor]:
    """By stage and parameter, averaged over the processes."""
    world, rank = distributed.world(), distributed.rank()
    dataset = TripletDataset(manifest.read(data, ["train"]), (64, 64), references=2, hflip=True)
    order = Order(len(dataset), SAMPLES // world, world, rank)
    chosen = order.step(0)[0]
    found = {}
    for name, stage in stages(preset):
        batch = replace(Batch.of([dataset[item] for item in chosen]).to("cpu"), step_seed=5)
        gan = len(stage.players) > 1
        module = distributed.wrapped(stage, torch.device("cpu"), find_unused=gan)
        for player in stage.players:
            module(batch, player, False)["loss"].backward()
            for key, parameter in stage.parameters_of(player):
                found[f"{name}/{player}/{key}"] = parameter.grad.clone()
            stage.zero_grad()
    return found


def main() -> None:
    data, preset, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    with distributed.group("cpu"):
        found = gradients(data, preset)
        if distributed.rank() == 0:
            torch.save(found, out)


if __name__ == "__main__":
    main()
