# Several processes do what one does with the whole batch.
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from models.checkpoints import io
from training.gsvar import commands
from training.gsvar.flags import LatentFlags, TokenizerFlags, parse_train

ROOT = Path(__file__).parents[3]
# of a gradient's longest sum, over all pixels of the four samples
ROUNDING = 4 * 64 * 64 * torch.finfo(torch.float64).eps


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(triplets, preset, tmp_path):
    from tests.training.gsvar import gradients

    out = tmp_path / "gradients.pt"
    torchrun("tests/training/gsvar/gradients.py", triplets, preset, out)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in each of the two: convolutions sum in another order with more
    try:
        theirs, ours = torch.load(out), gradients.gradients(triplets, preset)
    finally:
        torch.set_num_threads(threads)
    assert ours.keys() == theirs.keys()
    assert {name.split("/")[0] for name in ours} == {"vqvae", "ar", "vae"}
    for stage in ("vqvae/model", "vqvae/discriminator", "ar", "vae"):
        names = [name for name in ours if name.startswith(stage)]
        largest = max(ours[name].abs().max() for name in names)
        assert largest > 1e-4
        for name in names:
            assert ours[name].dtype == torch.float64
            assert (ours[name] - theirs[name]).abs().max() <= ROUNDING * max(1, largest), name


def test_codes_are_revived_alike_and_unused_convolutions_left_alone(triplets, preset, tmp_path):
    sizes = json.loads(preset.read_text()) | {"patch_nums": "1_2_4_8"}  # one phi is never used
    few = tmp_path / "few.json"
    few.write_text(json.dumps(sizes))
    shared = [f"--json_path={triplets}", f"--results={tmp_path}", f"--preset={few}"]
    shared += ["--workers=0", "--steps=3", "--revive_every=2", "--tblr=1e-4", "--wp=0"]
    commands.train_tokenizer(
        parse_train(TokenizerFlags, [*shared, "--batch_size=4", "--exp_name=one"], "", "")
    )
    torchrun("VQVAE_train.py", *shared, "--batch_size=2", "--exp_name=two")
    one, two = (io.read(tmp_path / name / "vqvae-ckpt-last.pth")[0] for name in ("one", "two"))
    for name, tensor in one["trainer"]["vae_local"].items():
        torch.testing.assert_close(
            two["trainer"]["vae_local"][name], tensor, rtol=1e-3, atol=2e-5, msg=name
        )
    assert torch.equal(one["resume"]["stage"]["hits"], two["resume"]["stage"]["hits"])


def test_a_sharded_run_stops_goes_on_and_ends_as_one_process_does(triplets, preset, tmp_path):
    shared = [f"--json_path={triplets}", f"--results={tmp_path}", f"--preset={preset}"]
    shared += ["--workers=0", "--steps=8", "--log_every=2", "--tblr=1e-3", "--num_samples_eval=1"]
    about = "train", "about"
    commands.train_tokenizer(
        parse_train(TokenizerFlags, [*shared, "--steps=1", "--exp_name=vq"], *about)
    )
    shared += [f"--vae_model_path={tmp_path / 'vq' / 'vqvae-ckpt-last.pth'}", "--alng=0.1"]
    alone = [*shared, "--batch_size=4"]
    commands.train_latent(parse_train(LatentFlags, [*alone, "--exp_name=one"], *about))
    sharded = [*shared, "--batch_size=2", "--fsdp=True", "--exp_name=two"]
    torchrun("VAR_train.py", *sharded, "--minutes=0.00001")
    said = torchrun("VAR_train.py", *sharded, "--minutes=0.00001")
    assert "step 2" in said
    # what was sharded goes on whole, and the other way round
    part = [*alone, "--exp_name=two", "--minutes=0.00001"]
    commands.train_latent(parse_train(LatentFlags, part, *about))
    said = torchrun("VAR_train.py", *sharded)
    assert "step 5" in said
    one, two = (io.read(tmp_path / name / "ar-ckpt-last.pth")[0] for name in ("one", "two"))
    assert two["resume"]["step"] == 8
    for name, tensor in one["trainer"]["var_wo_ddp"].items():
        torch.testing.assert_close(
            two["trainer"]["var_wo_ddp"][name], tensor, rtol=1e-4, atol=1e-5, msg=name
        )
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(json.loads, lines) if row["kind"] == "train"]
    assert steps == [2, 4, 5, 6, 8]
