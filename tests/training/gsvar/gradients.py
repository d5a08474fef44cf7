# Gradients of one step of every stage on as many processes as torchrun starts:
#   torchrun --nproc-per-node=2 tests/training/gsvar/gradients.py DATA PRESET OUT
from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent.parent))

import torch

from models.gsvar import GSVAR, GSVARConfig
from training import distributed
from training.gsvar.bridge import BridgeStage
from training.gsvar.latent import LatentStage
from training.gsvar.tokenizer import TokenizerStage
from training.losses import ImageObjective
from training.order import Order
from training.triplets import TripletDataset, collate
from triplets import manifest

SAMPLES = 4


def build_model(preset: Path) -> GSVAR:
    torch.manual_seed(0)
    model = GSVAR(GSVARConfig(**json.loads(preset.read_text())))
    with torch.no_grad():  # a new head says the same everywhere: nothing would depend on the data
        model.head.weight.mul_(100)
        for block in model.transformer.blocks:
            block.adaln[1].weight.mul_(1000)
    return model


def stages(preset: Path):
    objective = ImageObjective(None)
    yield "vqvae", TokenizerStage(build_model(preset), objective, total=10, gan=0.1)
    latent = build_model(preset)
    yield "ar", LatentStage(latent, corrupt=0.2, both_views=True)
    bridged = build_model(preset)
    torch.manual_seed(1)
    bridged.vqvae.add_bridge(identity=False)
    yield "vae", BridgeStage(bridged.eval(), objective, train_decoder=True)


def gradients(data: Path, preset: Path) -> dict[str, torch.Tensor]:
    """By stage and parameter, averaged over the processes; in float64, where sums in another order
    differ by far less than gradients of other samples do."""
    torch.set_default_dtype(torch.float64)
    try:
        return compute_gradients(data, preset)
    finally:
        torch.set_default_dtype(torch.float32)


def compute_gradients(data: Path, preset: Path) -> dict[str, torch.Tensor]:
    """By stage and parameter, in torch's default type."""
    world, rank = distributed.world_size(), distributed.rank()
    dataset = TripletDataset(manifest.read(data, ["train"]), (64, 64), references=2, hflip=True)
    order = Order(len(dataset), SAMPLES // world, world, rank)
    samples = order.step(order.place(0))[0]
    gradients_of = {}
    for name, stage in stages(preset):
        batch = collate([dataset[item] for item in samples]).to("cpu").at_step(0, 5)
        images = {part: getattr(batch, part).double() for part in ("views", "truth", "alpha")}
        batch = replace(batch, **images)
        gan = len(stage.networks) > 1
        module = distributed.wrap_ddp(stage, torch.device("cpu"), find_unused=gan)
        for network in stage.networks:
            module(batch, network, False)["loss"].backward()
            for key, parameter in stage.parameters_of(network):
                gradients_of[f"{name}/{network}/{key}"] = parameter.grad.clone()
            stage.zero_grad()
    return gradients_of


def main() -> None:
    data, preset, out = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    with distributed.process_group("cpu"):
        result = gradients(data, preset)
        if distributed.rank() == 0:
            torch.save(result, out)


if __name__ == "__main__":
    main()
