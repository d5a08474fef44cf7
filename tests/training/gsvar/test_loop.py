# Runs of the three stages: resumed equals uninterrupted, broken ones say where, logs are kept.
import csv
import json
import logging

import pytest
import torch

from models.checkpoints import io
from models.gsvar import loading
from training.gsvar import commands
from training.gsvar.flags import BridgeFlags, LatentFlags, TokenizerFlags, parse_train
from training.triplets import TripletDataset

KINDS = {
    "vqvae": (TokenizerFlags, commands.train_tokenizer),
    "ar": (LatentFlags, commands.train_latent),
    "vae": (BridgeFlags, commands.train_bridge),
}
COMMON = ("--batch_size=2", "--workers=0", "--tblr=1e-3", "--log_every=2", "--eval_freq=8")
CLOCKS = ("seconds", "samples_per_second", "memory_gb")


def train(kind, *arguments):
    flags, run = KINDS[kind]
    run(parse_train(flags, [*COMMON, *map(str, arguments)], "train", "about"))


@pytest.fixture(scope="module")
def chain(triplets, preset, tmp_path_factory):
    """A run of each stage, 8 steps: its folder by kind, and the arguments that made it."""
    results = tmp_path_factory.mktemp("results")
    shared = ("--steps=8", f"--json_path={triplets}", f"--results={results}")
    vqvae = results / "vqvae" / "vqvae-ckpt-last.pth"
    arguments = {
        "vqvae": (*shared, f"--preset={preset}", "--gan=0.1", "--gan_start=0.3"),
        "ar": (
            *(*shared, f"--preset={preset}", f"--vae_model_path={vqvae}", "--alng=0.1"),
            *("--corrupt=0.2", "--use_ref_drop=True", "--num_refs=2", "--ema=0.9", "--ac=2"),
            *("--hflip=True",),
        ),
        "vae": (
            *(*shared, f"--var_pretrain_path={results / 'ar' / 'ar-ckpt-last.pth'}"),
            *("--fp16=2", "--train_decoder=True", "--use_ref_view_loss=True"),
        ),
    }
    for kind, given in arguments.items():
        train(kind, *given, f"--exp_name={kind}")
    return results, arguments


class PowerCut(Exception):
    pass


def rows(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in lines]


def leaves(content, path=""):
    """Every tensor and number of a checkpoint by its place, but for what names the run."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key != "exp_name":
                yield from leaves(value, f"{path}/{key}")
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from leaves(value, f"{path}/{i}")
    else:
        yield path, content


@pytest.mark.parametrize("kind", ["vqvae", "ar", "vae"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(chain, kind, monkeypatch):
    results, arguments = chain
    again = (*arguments[kind], f"--exp_name={kind}-again")
    sample, count = TripletDataset.sample, [0]

    def until(self, triplet, seed):
        count[0] += 1
        if count[0] > 13 * (2 if kind == "ar" else 1):  # in step 7, after the save of step 4
            raise PowerCut
        return sample(self, triplet, seed)

    monkeypatch.setattr(TripletDataset, "sample", until)
    with pytest.raises(PowerCut):
        train(kind, *again)
    monkeypatch.undo()
    last = f"{kind}-ckpt-last.pth"
    interrupted, _ = io.read(results / f"{kind}-again" / last)
    assert interrupted["resume"]["step"] == (4 if kind != "ar" else 6)
    train(kind, *again)
    assert rows(results / f"{kind}-again") == rows(results / kind)
    ours, theirs = (
        dict(leaves(io.read(results / name / last)[0])) for name in (f"{kind}-again", kind)
    )
    assert ours.keys() == theirs.keys()
    for place, value in theirs.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(ours[place], value), place
        else:
            assert ours[place] == value, place


def test_what_a_run_leaves(chain):
    results, _ = chain
    for kind in KINDS:
        folder = results / kind
        for name in (f"{kind}-ckpt-last.pth", f"{kind}-ckpt-best.pth", "training.png"):
            assert (folder / name).is_file()
        table = list(csv.DictReader((folder / "metrics.csv").open()))
        assert [int(r["step"]) for r in table if r["kind"] == "train"] == [2, 4, 6, 8]
        assert {"loss", "lr", "grad_norm", "psnr", "render_psnr"} <= table[0].keys()
        assert len(list((folder / "val" / "0000008").glob("*.png"))) == 2
    table = list(csv.DictReader((results / "vqvae" / "metrics.csv").open()))
    assert any(row["codes_used"] for row in table)
    judged = [row["discriminator"] for row in table if row["kind"] == "train"]
    assert judged[0] == "" != judged[-1]  # it sets in after a third of the steps


def test_checkpoints_are_what_the_other_commands_read(chain):
    results, _ = chain
    model = loading.load(results / "ar" / "ar-ckpt-last.pth")
    assert not model.has_bridge
    model = loading.load(results / "vae" / "vae-ckpt-last.pth")
    assert model.has_bridge
    described = loading.inspect(results / "vae" / "vae-ckpt-last.pth")
    assert (described["stage"], described["iteration"]) == (2, 8)
    with pytest.raises(ValueError, match="no transformer"):
        loading.load(results / "vqvae" / "vqvae-ckpt-last.pth")


def test_stage_2_trains_bridge_and_decoder_only(chain):
    results, _ = chain
    before = loading.load(results / "ar" / "ar-ckpt-last.pth").state_dict()
    after = loading.load(results / "vae" / "vae-ckpt-last.pth").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(n.startswith(("vqvae.decoder", "vqvae.post_quant_conv")) for n in changed)


def test_a_finished_run_says_so(chain, caplog):
    results, arguments = chain
    caplog.set_level(logging.INFO)
    before = (results / "ar" / "metrics.jsonl").read_text()
    train("ar", *arguments["ar"], "--exp_name=ar")
    assert "all 8 steps are done" in caplog.text
    assert (results / "ar" / "metrics.jsonl").read_text() == before


def test_a_run_goes_on_longer_with_more_steps(chain, caplog):
    results, arguments = chain
    caplog.set_level(logging.INFO)
    train("vae", *arguments["vae"], "--exp_name=longer")
    train("vae", *arguments["vae"], "--exp_name=longer", "--steps=10")
    assert "going on with --steps=10; the run had 8 so far" in caplog.text
    content, _ = io.read(results / "longer" / "vae-ckpt-last.pth")
    assert content["resume"]["step"] == 10


def test_another_model_in_the_folder_is_refused(chain):
    _, arguments = chain
    with pytest.raises(ValueError, match="made with --ref_attends=None, not all"):
        train("ar", *arguments["ar"], "--exp_name=ar", "--ref_attends=all")


def test_resume_false_starts_over(chain):
    results, arguments = chain
    train("vae", *arguments["vae"], "--exp_name=over", "--steps=2")
    train("vae", *arguments["vae"], "--exp_name=over", "--steps=2", "--resume=False")
    assert [row["step"] for row in rows(results / "over")] == [2, 2]  # a train and a val line


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_entries(chain, monkeypatch):
    from training.gsvar.latent import LatentStage

    results, arguments = chain
    forward, bad = LatentStage.forward, []

    def spoilt(self, batch, network="model", detail=False):
        losses = forward(self, batch, network, detail)
        if batch.step == 6:
            bad.extend(batch.keys)
            losses["loss"] = losses["loss"] * float("nan")
        return losses

    monkeypatch.setattr(LatentStage, "forward", spoilt)
    # of 8 steps, saved after the fourth by the validation
    given = [a for a in arguments["ar"] if a != "--ac=2"]
    with pytest.raises(ValueError) as error:
        train("ar", *given, "--exp_name=nan")
    text = str(error.value)
    assert "not finite at step 7" in text
    assert all(key in text for key in bad)
    assert "nan/ar-ckpt-last.pth is the last good checkpoint" in text
    content, _ = io.read(results / "nan" / "ar-ckpt-last.pth")
    assert content["resume"]["step"] == 4
    assert all(v.isfinite().all() for v in content["trainer"]["var_wo_ddp"].values())


def test_an_exploding_loss_stops_the_run(chain, monkeypatch):
    from training.gsvar.latent import LatentStage

    _, arguments = chain
    forward = LatentStage.forward

    def growing(self, batch, network="model", detail=False):
        losses = forward(self, batch, network, detail)
        losses["loss"] = losses["loss"] * (100 if batch.step > 1 else 1)
        return losses

    monkeypatch.setattr(LatentStage, "forward", growing)
    with pytest.raises(ValueError, match=r"the loss has risen from .* to .* at step 12"):
        train("ar", *arguments["ar"], "--exp_name=boom", "--steps=20", "--tblr=0")


def test_a_loss_that_was_negative_once_is_no_measure_of_an_explosion(chain, monkeypatch):
    from training.gsvar.latent import LatentStage

    _, arguments = chain
    forward = LatentStage.forward

    def swinging(self, batch, network="model", detail=False):
        losses = forward(self, batch, network, detail)
        losses["loss"] = losses["loss"] * 0 + (-8.0 if batch.step == 2 else 3.0)
        return losses

    monkeypatch.setattr(LatentStage, "forward", swinging)
    given = ("--exp_name=swing", "--steps=16", "--tblr=0", "--log_every=1")
    assert train("ar", *arguments["ar"], *given) is None


def test_minutes_stop_a_run_that_then_goes_on(chain):
    results, arguments = chain
    train("vae", *arguments["vae"], "--exp_name=short", "--minutes=1e-9")
    content, _ = io.read(results / "short" / "vae-ckpt-last.pth")
    assert content["resume"]["step"] == 1
    train("vae", *arguments["vae"], "--exp_name=short", "--minutes=60")
    ours, theirs = (io.read(results / n / "vae-ckpt-last.pth")[0] for n in ("short", "vae"))
    for name, tensor in theirs["trainer"]["vae_local"].items():
        assert torch.equal(ours["trainer"]["vae_local"][name], tensor), name


def test_lora_trains_its_factors_only_and_goes_on(chain, preset, triplets):
    results, _ = chain
    base = results / "ar" / "ar-ckpt-last.pth"
    given = (
        *(f"--json_path={triplets}", f"--results={results}", f"--var_pretrain_path={base}"),
        *("--use_lora=True", "--lora_r=4", "--lora_target_modules=qvo", "--exp_name=lora"),
    )
    train("ar", *given, "--steps=4")
    content, _ = io.read(results / "lora" / "ar-ckpt-last.pth")
    names = content["trainer"]["var_wo_ddp"]
    assert names
    assert all(".lora_" in name for name in names)
    train("ar", *given, "--steps=6")
    merged = loading.load(results / "lora" / "ar-ckpt-last.pth", base=base).state_dict()
    before = loading.load(base).state_dict()
    changed = {name for name in before if not torch.equal(before[name], merged[name])}
    expected = {"attention.qkv.weight", "attention.proj.weight"}
    assert {name.split(".", 3)[-1] for name in changed} == expected
