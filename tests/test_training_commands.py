# VQVAE_train.py, VAR_train.py and VAE_train.py: the published commands on small weights, and
# mistakes.
import csv
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from models.checkpoints import io
from models.gsvar import GSVAR, loading
from tests.conftest import GUARD
from tests.training.conftest import preset, sizes, triplets  # noqa: F401

ROOT = Path(__file__).parent.parent
SEEDS = ROOT.parent / "shared" / "seeds" / "gsvar.md"
SIZES = {"depth": "2", "batch_size": "4", "ep": "1"}  # "as printed but for paths and sizes"


def published() -> list[list[str]]:
    """The training commands as printed: script and flags, without the launcher's."""
    lines = [line for line in SEEDS.read_text().splitlines() if line.startswith("torchrun")]
    return [shlex.split(line[re.search(r"V\w+_train\.py", line).start() :]) for line in lines]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, triplets):  # noqa: F811
    """A folder with data/data.json and checkpoints/VARSR.pth and VQVAE.pth, as users have them."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "data").mkdir()
    shutil.copy(triplets, folder / "data" / "data.json")
    torch.manual_seed(0)
    content_of = folder / "whole.pth"
    loading.save_original(GSVAR(sizes(ref_attends="all")), content_of)
    content, _ = io.read(content_of)
    trainer, config = content["trainer"], content["trainer"]["config"]
    (folder / "checkpoints").mkdir()
    for name, part in (("VARSR", "var_wo_ddp"), ("VQVAE", "vae_local")):
        file = {**content, "trainer": {"config": config, part: trainer[part]}}
        torch.save(file, folder / "checkpoints" / f"{name}.pth")
    content_of.unlink()
    return folder


@pytest.fixture
def call(run_script, workplace):
    """call(script, *arguments) -> exit code, and what was said; in the workplace."""
    return partial(run_script, workplace)


@pytest.mark.skipif(not SEEDS.exists(), reason="the published commands are not here")
def test_the_published_commands_run(call, workplace):
    commands = published()
    assert len(commands) == 4
    for script, *flags in commands:
        changed = [
            f"--{name}={SIZES.get(name, value)}"
            for name, value in (flag.removeprefix("--").split("=", 1) for flag in flags)
        ]
        code, said = call(script, *changed, "--workers=0", "--wandb_mode=offline")
        assert code == 0, said
        name = dict(flag.removeprefix("--").split("=", 1) for flag in flags)["exp_name"]
        kind = "ar" if script == "VAR_train.py" else "vae"
        file = workplace / "results" / name / f"{kind}-ckpt-last.pth"
        described = loading.inspect(file)
        assert described["stage"] == (1 if kind == "ar" else 2)
        assert described["epoch"] == 1
        assert loading.load(file).has_bridge == (kind == "vae")


def test_stage_two_learns_by_lpips_and_the_gram_loss(call, workplace, backbones_folder):
    flags = ["--var_pretrain_path=checkpoints/VARSR.pth", "--use_gram_loss=True", "--steps=2"]
    flags += ["--vae_model_path=checkpoints/VQVAE.pth", "--batch_size=1", "--workers=0"]
    flags += [f"--backbones={backbones_folder}", "--exp_name=perceptual", "--depth=2"]
    code, said = call("VAE_train.py", *flags)
    assert code == 0, said
    assert "Images are trained by L2 + LPIPS + 0.5 Gram (VGG16)." in said
    with (workplace / "results" / "perceptual" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("lpips", "gram", "render_lpips"):
        values = [float(row[name]) for row in rows if row.get(name)]
        assert values and all(0 < value < float("inf") for value in values), (name, rows)


def test_a_killed_run_goes_on(workplace):
    command = [
        *(sys.executable, ROOT / "VAR_train.py", "--steps=40000", "--save_minutes=0.05"),
        *("--batch_size=2", "--log_every=2", "--exp_name=killed", "--workers=2", "--seed=1"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    lines = workplace / "results" / "killed" / "metrics.jsonl"

    def start():
        return subprocess.Popen(
            list(map(str, command)),
            cwd=workplace,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def steps():
        if not lines.exists():
            return 0
        rows = [json.loads(line) for line in lines.read_text().splitlines(keepends=True)[:-1]]
        return rows[-1]["step"] if rows else 0

    def wait(run, beyond):
        until = time.monotonic() + GUARD
        while steps() < beyond:
            assert run.poll() is None and time.monotonic() < until, run.stderr.read()
            time.sleep(0.05)

    run = start()
    last = workplace / "results" / "killed" / "ar-ckpt-last.pth"
    while not last.exists():
        wait(run, 2)
        time.sleep(0.05)
    run.kill()
    run.wait()
    saved = io.read(last)[0]["resume"]["step"]
    assert saved >= 1
    run = start()
    wait(run, saved + 4)
    os.killpg(run.pid, signal.SIGTERM)  # the processes that read samples too, as scancel does
    _, said = run.communicate(timeout=GUARD)
    assert run.returncode == 143
    assert "Traceback" not in said
    assert f"going on from results/killed/ar-ckpt-last.pth, step {saved}" in said
    assert "the same command goes on" in said
    assert io.read(last)[0]["resume"]["step"] >= saved + 4


def changed(path: Path, **entries) -> Path:
    """A copy of data.json with things done to its first entry."""
    content = json.loads(path.read_text())
    key, entry = next(iter(content["train"].items()))
    content["train"][key] = {k: v for k, v in (entry | entries).items() if v is not None}
    target = path.parent / "changed.json"
    target.write_text(json.dumps(content))
    return target


def test_wrong_lists(call, workplace, tmp_path):
    good = workplace / "data" / "data.json"
    first = next(iter(json.loads(good.read_text())["train"]))
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(entry(good, "render")).read_bytes()[:300])
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"train": {}, "val": {}}))
    small = tmp_path / "small.png"
    picture(small)
    unheld = tmp_path / "unheld.json"
    unheld.write_text(json.dumps(json.loads(good.read_text()) | {"val": {}}))
    cases = [
        (unheld, "the split val or test is empty"),
        (tmp_path / "none.json", "no such file (--json_path)"),
        (empty, "the split train is empty"),
        (
            changed(good, render=str(tmp_path / "no.png")),
            f"{first}: {tmp_path}/no.png is not there",
        ),
    ]
    for path, text in cases:
        code, said = call("VAR_train.py", f"--json_path={path}", "--exp_name=wrong")
        assert (code, text in said) == (2, True), said
    cases = [(small, f"{first}: the render {small} is 20x30"), (broken, f"{first}: {broken}")]
    for render, text in cases:
        for workers in (0, 2):
            path = changed(good, render=str(render))
            code, said = call(
                *("VAR_train.py", f"--json_path={path}", "--exp_name=wrong", "--steps=4"),
                f"--workers={workers}",
            )
            assert (code, text in said) == (2, True), said
            assert "Traceback" not in said
    code, said = call("VAR_train.py", f"--json_path={changed(good, ref=None, references=None)}")
    assert (code, "has no reference" in said or "no reference" in said) == (2, True)
    assert not (workplace / "results" / "VARSR").exists()


def test_bad_entries_are_left_out_when_asked(call, workplace, tmp_path):
    good = workplace / "data" / "data.json"
    path = changed(good, render=str(tmp_path / "no.png"))
    content = json.loads(path.read_text())
    del content["val"]
    path.write_text(json.dumps(content))
    flags = ("--steps=1", "--workers=0", "--skip_bad=True", "--exp_name=skipping")
    code, said = call("VAR_train.py", f"--json_path={path}", *flags)
    assert code == 0, said
    assert "left out 1 of 10 entries, first: " in said
    before, entries, after = said.rpartition("9 entries, 1 steps")
    assert entries
    for part in (before, after):
        assert "has no val split: validating on training entries" in part


def entry(path: Path, name: str) -> str:
    content = json.loads(path.read_text())
    return str((path.parent / next(iter(content["train"].values()))[name]).resolve())


def picture(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (20, 30)).save(path)


@pytest.mark.parametrize(
    ("script", "flags", "text"),
    [
        ("VAR_train.py", ["--pn=1_2_3"], "--pn=1_2_3 is not the schedule of checkpoints/VARSR.pth"),
        ("VAR_train.py", ["--depth=24"], "checkpoints/VARSR.pth has depth 2, not --depth=24"),
        ("VAR_train.py", ["--batch_size=64"], "10 samples are fewer than the 64 of a step"),
        ("VAR_train.py", ["--var_pretrain_path=no.pth"], "no.pth: no such file"),
        ("VAR_train.py", ["--var_pretrain_path=data/data.json"], "data/data.json is"),
        ("VAR_train.py", ["--var_pretrain_path=checkpoints/VQVAE.pth"], "holds a VQ-VAE and no tr"),
        ("VAR_train.py", ["--vae_model_path=checkpoints/VARSR.pth"], "holds no VQ-VAE"),
        ("VAR_train.py", ["--exp_name=../x"], "must be a folder's name"),
        ("VAR_train.py", ["--exp_name="], "must be a folder's name"),
        ("VAR_train.py", ["--steps=0"], "--steps=0 must be at least 1"),
        ("VAR_train.py", ["--num_refs=5"], "2 references (ref_image or ref), and 5 asked for"),
        ("VAR_train.py", ["--use_warped=True"], "no warped reference"),
        ("VAR_train.py", ["--cache_dir=c"], "say how many of each picture (--crops 4)"),
        ("VAR_train.py", ["--sche=lim0"], "--sche=lim0: choose lin0"),
        ("VAR_train.py", ["--tblrr=1"], "there is no flag --tblrr; did you mean --tblr?"),
        ("VAR_train.py", ["--fsdp=True"], "start it with torchrun"),
        ("VAR_train.py", ["--preset=huge"], "--preset=huge: choose original-d24"),
        ("VAR_train.py", ["--preset=huge", "--vae_model_path=no.pth"], "--preset=huge: choose"),
        ("VAE_train.py", ["--harm=-1", "--var_pretrain_path=no.pth"], "--harm=-1.0 must not be"),
        ("VAR_train.py", ["--lora_target_modules=xy", "--use_lora=True"], "must name some of q, k"),
        ("VAR_train.py", ["--device=cuda:7"], "no such GPU is available"),
        ("VAE_train.py", ["--use_gram_loss=True"], "--use_gram_loss needs VGG16"),
        ("VQVAE_train.py", ["--images=nowhere", "--preset=tiny"], "nowhere is no folder"),
        ("VQVAE_train.py", [], "name the tokenizer's sizes (--preset small, say)"),
    ],
)
def test_wrong_flags_are_told_in_one_sentence(call, workplace, script, flags, text):
    name = [] if any(flag.startswith("--exp_name") for flag in flags) else ["--exp_name=refused"]
    code, said = call(script, *flags, *name, "--workers=0")
    assert code == 2, said
    assert text in said
    assert not list((workplace / "results" / "refused").glob("*.pth"))


def test_weights_and_biases_is_not_needed(call, workplace, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    code, said = call(
        *("VAR_train.py", "--wandb_flag=True", "--steps=1", "--exp_name=quiet", "--workers=0")
    )
    assert code == 0
    assert "Weights & Biases is not installed" in said
    assert (workplace / "results" / "quiet" / "metrics.csv").is_file()


def test_a_full_disk_leaves_the_checkpoint_before(workplace):
    command = [sys.executable, ROOT / "VAR_train.py", "--exp_name=full", "--workers=0"]
    command += ["--batch_size=2", "--eval_freq=4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*more, limit=None):
        def limited():
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.run(
            list(map(str, [*command, *more])), cwd=workplace, env=environment, text=True,
            capture_output=True, preexec_fn=limited,
        )  # fmt: skip

    assert run("--steps=2").returncode == 0
    last = workplace / "results" / "full" / "ar-ckpt-last.pth"
    before = last.read_bytes()
    done = run("--steps=6", limit=1_000_000)
    assert done.returncode == 2, done.stderr
    assert "results/full/ar-ckpt-last.pth" in done.stderr
    assert "the one before is whole" in done.stderr
    assert last.read_bytes() == before
    assert not [f for f in last.parent.iterdir() if f.name.startswith(".ar-ckpt")]


def test_help_teaches(call):
    for script in ("VQVAE_train.py", "VAR_train.py", "VAE_train.py"):
        code, said = call(script, "--help")
        assert code == 0
        assert "Examples:" in said
        assert "--exp_name" in said
