# The three stages learn: a model of under a million parameters on ten procedural triplets.
import json

import pytest
import torch

from evaluation.metrics import Metrics
from fixers.gsvar import GSVARFixer
from models.gsvar import loading
from training.gsvar import commands
from training.gsvar.flags import BridgeFlags, LatentFlags, TokenizerFlags, parse_train
from training.gsvar.latent import LatentStage
from training.triplets import TripletDataset, collate
from training.validation import TripletValidation, predict_by_fixing
from triplets import manifest


@pytest.fixture(scope="module")
def trained(triplets, preset, tmp_path_factory):
    """Results of the three stages, about a minute each on two cores."""
    results = tmp_path_factory.mktemp("learnt")
    shared = [f"--json_path={triplets}", f"--results={results}", "--workers=0", "--log_every=10"]
    shared += ["--tblr=4e-3", "--wp=2", "--eval_freq=1000000"]
    vqvae, latent = results / "vq/vqvae-ckpt-last.pth", results / "ar/ar-ckpt-last.pth"
    runs = [
        (commands.train_tokenizer, TokenizerFlags, "vq", 200, [f"--preset={preset}"]),
        (
            *(commands.train_latent, LatentFlags, "ar", 200),
            [f"--preset={preset}", f"--vae_model_path={vqvae}", "--alng=0.3", "--hd=1"],
        ),
        (
            *(commands.train_bridge, BridgeFlags, "vae", 60),
            [
                f"--var_pretrain_path={latent}",
                "--train_decoder=True",
                "--crops=1",
                f"--cache_dir={results / 'cache'}",
            ],
        ),
    ]
    for run, kind, name, steps, own in runs:
        flags = [*shared, *own, f"--steps={steps}", f"--exp_name={name}"]
        run(parse_train(kind, flags, "train", "about"))
    return results


def curve(folder, name):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if line["kind"] == "train"]


def test_models_are_small(trained):
    model = loading.load(trained / "vae/vae-ckpt-last.pth")
    assert sum(p.numel() for p in model.parameters()) < 1e6


@pytest.mark.parametrize(
    ("stage", "name", "below"),
    [
        ("vq", "loss", 0.5),
        ("vq", "l1", 0.5),
        ("ar", "cross_entropy", 0.2),
        ("ar", "diffusion", 0.4),
        ("vae", "loss", 0.75),
    ],
)
def test_losses_fall_well_below_their_start(trained, stage, name, below):
    values = curve(trained / stage, name)
    assert values[-1] < below * values[0]


def test_tokens_are_predicted_better_than_by_chance_or_habit(trained, triplets):
    model = loading.load(trained / "ar/ar-ckpt-last.pth")
    dataset = TripletDataset(manifest.read(triplets, ["train"]), (64, 64))
    batch = collate([dataset[i, i] for i in range(len(dataset))]).to("cpu")
    stage = LatentStage(model.eval())
    with torch.no_grad():
        accuracy = stage(batch, detail=True)["accuracy"].item()
        latents, _ = stage.latents(batch, batch.views)
        tokens, *_ = stage.targets(latents[:, :1], stage.fit_scales(batch.views), None)
    habit = tokens.flatten().bincount().max().item() / tokens.numel()
    assert habit < 0.5
    assert accuracy > 20 / model.config.vocabulary
    assert accuracy > habit + 0.2


def test_the_fixed_view_beats_the_render_on_training_views(trained, triplets):
    model = loading.load(trained / "vae/vae-ckpt-last.pth")
    validation = TripletValidation(manifest.read(triplets, ["train"]), Metrics(None))
    values, _ = validation.measure(predict_by_fixing(GSVARFixer(model, bridge=True).fix))
    assert values["psnr"] > values["render_psnr"] + 1
    assert values["ssim"] > values["render_ssim"]
