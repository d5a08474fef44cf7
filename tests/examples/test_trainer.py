import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from splats.formats import ply
from splats.gaussians import from_points
from tests.conftest import GUARD
from tests.examples.conftest import environment

ROOT = Path(__file__).parents[2]
FILE = ROOT / "examples" / "gsplat" / "simple_trainer_difix3d.py"
command = importlib.import_module("examples.gsplat.simple_trainer_difix3d")


def arguments(monkeypatch, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["trainer", *map(str, flags)])


def test_the_published_vanilla_command_makes_the_published_files(capture, tmp_path, trainer):
    out = tmp_path / "3DGS" / "50"
    code, _, err = trainer(
        *("default", "--data_dir", capture, "--data_factor", 4, "--result_dir", out),
        *("--no-normalize-world-space", "--test_every", 2, "--no-fix", "--max_steps", 130),
        *("--eval_steps", 20, "--save_steps", 20),
    )
    assert code == 0, err
    assert "difix" in err and "6 train, 6 test" in err  # the published meaning of --test_every
    first, last = (
        json.loads((out / f"stats/val_step{step:04d}.json").read_text()) for step in (19, 129)
    )
    assert set(last) == {"psnr", "ssim", "lpips", "ellipse_time", "num_GS"}
    assert last["psnr"] > first["psnr"] + 1
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names > {
        "cfg.yml",
        "ckpts/ckpt_19_rank0.pt",
        "ckpts/ckpt_129_rank0.pt",
        "ply/point_cloud_129.ply",
        "renders/val/129/Pred/0005.png",
        "stats/train_step0129_rank0.json",
        "videos/traj_129.mp4",
        "report/index.html",
    }
    settings = yaml.safe_load((out / "cfg.yml").read_text())
    assert settings["max_steps"] == 130 and settings["normalize_world_space"] is False
    assert ply.read(out / "ply/point_cloud_129.ply").count == last["num_GS"]


KILLED = """
import os, runpy, signal
from reconstruction.session import Session
from reconstruction.trainer import Trainer

save, step, saved = Session.save_state, Trainer.step, []

def save_state(session):
    save(session)
    saved.append(session.trainer.state.done)

def step_or_die(trainer, *arguments, **options):
    if saved and 50 < saved[-1] < trainer.state.done:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer, *arguments, **options)

Session.save_state, Trainer.step = save_state, step_or_die
runpy.run_module("examples.gsplat.simple_trainer_difix3d", run_name="__main__", alter_sys=True)
"""
"""The trainer, killed in the second step after a save."""


def test_a_killed_run_goes_on_and_ends_like_one_never_killed(capture, tmp_path, monkeypatch):
    flags = ["mcmc", "--data-dir", capture, "--no-fix", "--max-steps", 400, "--no-save-video"]
    flags += ["--strategy.refine-start-iter", 20, "--save-every-seconds", 0.05]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, flags), "--result-dir", tmp_path / "killed"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 50 <= torch.load(tmp_path / "killed" / "resume.pt", weights_only=True)["step"] < 399
    for folder in ("killed", "straight"):
        arguments(monkeypatch, *flags, "--result_dir", tmp_path / folder)
        command.main()
    ends = [
        torch.load(tmp_path / folder / "ckpts/ckpt_399_rank0.pt", weights_only=True)["splats"]
        for folder in ("killed", "straight")
    ]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert not list((tmp_path / "killed").glob(".*"))


def test_ctrl_c_saves_says_how_to_resume_and_exits_with_130(capture, tmp_path, start_trainer):
    process = start_trainer(
        *("default", "--data_dir", capture, "--no-fix", "--save_steps", 2, "--eval_steps"),
        *(30_000, "--result_dir", tmp_path),
    )
    deadline = time.monotonic() + GUARD
    while not (tmp_path / "ckpts/ckpt_1_rank0.pt").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=GUARD)
    assert process.returncode == 130, err
    assert "the same command resumes there" in err
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] >= 1


@pytest.mark.parametrize("kind", ["ckpt", "ply"])
def test_existing_splats_are_measured_or_trained_on(capture, tmp_path, monkeypatch, kind):
    first, second = tmp_path / "first", tmp_path / "second"
    base = ["default", "--data_dir", capture, "--no-fix", "--no-save_video"]
    arguments(monkeypatch, *base, "--max_steps", 10, "--result_dir", first)
    command.main()
    file = {"ckpt": "ckpts/ckpt_9_rank0.pt", "ply": "ply/point_cloud_9.ply"}[kind]
    start = [f"--{kind}", first / file, "--result_dir", second]
    arguments(monkeypatch, *base, *start, "--eval_only")
    command.main()
    step = {"ckpt": 9, "ply": 0}[kind]
    measured = json.loads((second / f"stats/val_step{step:04d}.json").read_text())
    known = json.loads((first / "stats/val_step0009.json").read_text())
    assert measured["psnr"] == pytest.approx(known["psnr"], abs=1e-4)
    if kind == "ckpt":
        check_ranks(first / file, [*base, "--eval_only"], measured["psnr"], monkeypatch)
    arguments(monkeypatch, *base, *start, "--max_steps", 15)
    command.main()
    assert (second / "ckpts/ckpt_14_rank0.pt").exists()


def check_ranks(file, evaluate, psnr, monkeypatch):
    """The same splats in the files of two ranks are measured as one, however they are named."""
    content = torch.load(file, weights_only=True)
    folder = file.parents[2] / "ranks" / "ckpts"
    folder.mkdir(parents=True)
    files = [folder / f"ckpt_9_rank{rank}.pt" for rank in (0, 1)]
    for rank, part in enumerate(files):
        own = {name: values[rank::2].clone() for name, values in content["splats"].items()}
        torch.save({"step": content["step"], "splats": own}, part)
    for named in (["--ckpt", *files], ["--ckpt", files[0]], []):
        stats = folder.parent / "stats" / "val_step0009.json"
        stats.unlink(missing_ok=True)
        arguments(monkeypatch, *evaluate, *named, "--result_dir", folder.parent)
        command.main()
        assert json.loads(stats.read_text())["psnr"] == pytest.approx(psnr, abs=1e-3)


def test_splats_are_taken_in_the_world_they_lie_in(capture, tmp_path, monkeypatch, caplog):
    """The capture's photos are of these splats, in its own world; a run normalises it."""
    generator = torch.Generator().manual_seed(0)
    points = 0.7 * torch.randn(200, 3, generator=generator)
    colors = torch.rand(200, 3, generator=generator)
    truth = from_points(points, colors, opacity=0.9, scale=0.7, generator=generator)
    ply.write(tmp_path / "raw.ply", truth)
    base = ["default", "--data_dir", capture, "--data_factor", 1, "--no-fix", "--no-save_video"]
    base += ["--ply", tmp_path / "raw.ply", "--max_steps", 1]
    for flag, warned in (("--normalize_world_space", True), ("--no-normalize_world_space", False)):
        caplog.clear()
        arguments(monkeypatch, *base, flag, "--result_dir", tmp_path / flag)
        command.main()
        numbers = json.loads((tmp_path / flag / "stats/val_step0000.json").read_text())
        assert numbers["psnr"] > 25
        assert ("lies in the capture's own world: taking that" in caplog.text) == warned


@pytest.mark.parametrize(
    "flags",
    [
        ["--data_dir", "--test_every", "--no-normalize-world-space", "--ssim_lambda"],
        ["--data-dir", "--test-every", "--no-normalize_world_space", "--ssim-lambda"],
    ],
)
def test_hyphens_and_underscores_are_alike(flags, capture, tmp_path, monkeypatch):
    data_dir, test_every, normalize, ssim_lambda = flags
    seen = []
    monkeypatch.setattr(command.reconstruction, "optimise", lambda *a, **k: seen.append(a))
    values = [data_dir, capture, test_every, 3, normalize, ssim_lambda, 0.3, "--no-fix"]
    arguments(monkeypatch, "default", *values, "--result_dir", tmp_path)
    command.main()
    scene, config = seen[0]
    assert scene.split.rule == "difix" and len(scene.split.train) == 4
    assert config.ssim_lambda == 0.3
    assert torch.equal(scene.transform, torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("start", [["-m", "examples.gsplat.simple_trainer_difix3d"], [FILE]])
def test_the_command_runs_as_a_module_and_as_a_script_from_any_folder(start, tmp_path):
    done = subprocess.run(
        [sys.executable, *map(str, start), "--help"],
        cwd=tmp_path,
        env=os.environ | ({"PYTHONPATH": str(ROOT)} if start[0] == "-m" else {}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "{default,mcmc}" in done.stdout, done.stderr


def test_without_test_every_each_eighth_view_is_held_out(capture, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(command.reconstruction, "optimise", lambda *a, **k: seen.append(a))
    arguments(monkeypatch, "default", "--data_dir", capture, "--no-fix", "--result_dir", tmp_path)
    command.main()
    assert seen[0][0].split.test == (0, 8)


def test_flags_of_rounds_without_rounds_are_told(capture, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(command.reconstruction, "optimise", lambda *a, **k: None)
    flags = ("default", "--data_dir", capture, "--no-fix", "--result_dir", tmp_path)
    arguments(monkeypatch, *flags, "--post", "never")
    command.main()
    assert "without effect" not in caplog.text
    arguments(monkeypatch, *flags, "--trajectory", "path.json", "--rounds", 5)
    command.main()
    assert "without effect with --no-fix: --rounds, --trajectory" in caplog.text
    monkeypatch.setattr(command.reconstruction, "evaluate_only", lambda *a, **k: None)
    ply.write(tmp_path / "start.ply", from_points(torch.randn(50, 3), torch.rand(50, 3)))
    flags = (*flags[:3], "--result_dir", tmp_path, "--trajectory", "path.json")
    arguments(monkeypatch, *flags, "--ply", tmp_path / "start.ply", "--eval_only")
    command.main()
    assert "without effect with --eval_only: --trajectory" in caplog.text


def test_a_folder_in_use_is_refused_before_photos_are_read(tmp_path, run_elsewhere, monkeypatch):
    used = tmp_path / "run"
    arguments(monkeypatch, "default", "--data_dir", tmp_path / "none", "--result_dir", used)
    with run_elsewhere(used), pytest.raises(ValueError, match="in use by another run"):
        command.main()


BAD = {
    "a fixer that comes later": (["--fixer", "difix"], "later version"),
    "weights that are not there": (["--var_test_path", "nope.pth"], "nope.pth"),
    "weights of another depth": (["--depth", 24], "depth"),
    "an option of another fixer": (["--fixer", "classical", "--depth", 6], "--depth is an option"),
    "a trajectory that is not there": (
        ["--fixer", "classical", "--targets", "trajectory", "--trajectory", "nope.json"],
        "nope.json",
    ),
    "no steps": (["--no-fix", "--max_steps", 0], "--max_steps is 0"),
    "a negative factor": (["--no-fix", "--data_factor", -2], "must be a whole number"),
    "a device that is not there": (["--no-fix", "--device", "cuda:9"], "use --device cpu"),
    "a device of no kind": (["--no-fix", "--device", "tpu9000"], "--device tpu9000"),
    "a checkpoint that is not there": (
        ["--no-fix", "--ckpt", "nope.pt"],
        "--ckpt nope.pt does not exist; give splats, such as a result's ckpts/",
    ),
    "a checkpoint that is none": (["--no-fix", "--ckpt", __file__], "test_trainer.py"),
    "a .ply that is not splats": (["--no-fix", "--ply", __file__], "test_trainer.py"),
    "two starts": (["--no-fix", "--ckpt", "a", "--ply", "b"], "give one"),
    "a split without test views": (["--no-fix", "--test_every", 100, "--split", "json"], "split"),
    "a result folder in a file": (["--no-fix", "--result_dir", f"{__file__}/x"], "cannot write"),
    "nothing to evaluate": (["--eval_only"], "no splats in"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(case, capture, tmp_path, monkeypatch, capsys):
    flags, sentence = BAD[case]
    out = tmp_path / "out"
    out.mkdir()
    base = ["default", "--data_dir", capture, "--result_dir", out]
    arguments(monkeypatch, *base, *flags)
    with pytest.raises(SystemExit) as stop:
        command.run_command(command.main)
    err = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert err[-1].startswith("error: ") and sentence in err[-1], err
    assert not list(out.iterdir())


def test_recon_vanilla_script_takes_its_environment(capture, tmp_path):
    benchmark = capture.parents[1]
    variables = {
        "SCENE_ID": capture.parent.name,
        "DATA_BASE_DIR": str(benchmark),
        "OUTPUT_BASE_DIR": str(tmp_path),
        "EVERY": "3",
        "PYTHON": sys.executable,
    }
    done = subprocess.run(
        ["bash", ROOT / "scripts/recon_vanilla.sh", "--max_steps", "2", "--no-save_video"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    assert done.returncode == 0, done.stderr
    assert "4 train, 8 test" in done.stderr
    assert (tmp_path / capture.parent.name / "3" / "ckpts/ckpt_1_rank0.pt").exists()
    shutil.rmtree(tmp_path / capture.parent.name)


def test_fixing_makes_the_published_files_and_a_report_of_both_ways(capture, tmp_path, trainer):
    out = tmp_path / "fixed"
    flags = ("--data_dir", capture, "--result_dir", out, "--test_every", 2, "--fixer", "classical")
    flags += ("--max_steps", 60, "--fix_steps", 20, 40, "--eval_steps", 60, "--control")
    code, _, err = trainer("default", *flags, "--gate_least", 4, "--no-save_video")
    assert code == 0, err
    stats = json.loads((out / "stats/val_step0059.json").read_text())
    assert {"psnr", "post_psnr", "post_ssim", "post_lpips"} <= set(stats)
    vanilla = json.loads((out / "vanilla/stats/val_step0059.json").read_text())
    assert vanilla["psnr"] > 0
    rounds = json.loads((out / "stats/rounds_step0059.json").read_text())
    assert [r["step"] for r in rounds] == [20, 40]
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    novel = {f"renders/novel/19/{kind}/0000.png" for kind in ("Pred", "Alpha", "Fixed", "Ref")}
    post = {
        f"renders/val/59/{kind}/0000.png"
        for kind in ("GT", "Pred", "Alpha", "Holes", "Post", "Ref")
    }
    assert names >= novel | post | {"ply/point_cloud_59.ply", "report/index.html"}
    page = (out / "report/index.html").read_text()
    assert "vanilla" in page and "renders fixed" in page

    start = out / "ply/point_cloud_59.ply"
    flags = ("--data_dir", capture, "--result_dir", tmp_path / "warm", "--ply", start)
    flags += ("--max_steps", 20, "--rounds", 1, "--fixer", "identity", "--no-save_video")
    flags += ("--targets", "trajectory", "--trajectory", out / "cameras.json")
    code, _, err = trainer("default", *flags)
    assert code == 2 and "identity" in err  # a control of benchmarks, no fixer to choose
    flags = tuple("classical" if flag == "identity" else flag for flag in flags)
    code, _, err = trainer("default", *flags)
    assert code == 0, err
    rounds = json.loads((tmp_path / "warm/stats/rounds_step0019.json").read_text())
    assert [r["step"] for r in rounds] == [0]
    settings = yaml.safe_load((tmp_path / "warm/cfg.yml").read_text())
    assert settings["trajectory"] == str(out / "cameras.json")
    code, _, err = trainer("default", *flags[:4], "--eval_only", "--no-save_video")
    assert code == 0, err
    assert "Rounds" in (tmp_path / "warm/report/index.html").read_text()

    away = ply.read(start)
    away["means"].data += 1e3
    ply.write(tmp_path / "away.ply", away)
    flags = ("--data_dir", capture, "--result_dir", tmp_path / "away", "--max_steps", 9)
    flags += ("--ply", tmp_path / "away.ply", "--fixer", "classical")
    code, _, err = trainer("default", *flags)
    assert code == 2 and "do splats and poses belong together" in err
    none = ("--data_dir", capture, "--result_dir", tmp_path / "none", "--fixer", "classical")
    code, _, err = trainer("default", *none, "--max_steps", 9, "--fix_steps", 50, "--no-save_video")
    assert code == 0 and "no round of fixing falls into these 9 steps" in err


def test_the_shipped_weights_fix_and_distil_by_the_published_script(capture, tmp_path):
    scene = tmp_path / "data" / "abc" / "gaussian_splat"
    scene.parent.mkdir(parents=True)
    scene.symlink_to(capture, target_is_directory=True)
    environment = {
        **os.environ,
        "SCENE_ID": "abc",
        "DATA_BASE_DIR": str(tmp_path / "data"),
        "OUTPUT_BASE_DIR": str(tmp_path / "out"),
        "EVERY": "4",
        "DATA_FACTOR": "4",
        "USE_REF": "True",
        "PYTHON": sys.executable,
        "FIXER": "gsvar",
    }
    flags = ["--max_steps", "30", "--fix_steps", "20", "--no-save_video", "--gate", "off"]
    done = subprocess.run(
        ["bash", ROOT / "scripts/recon_gsvar.sh", *flags],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "abc" / "4"
    assert "post_psnr" in json.loads((folder / "stats/val_step0029.json").read_text())
    done = subprocess.run(
        ["bash", ROOT / "scripts/recon_difix.sh"],
        env={k: v for k, v in environment.items() if k != "FIXER"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "later version" in done.stderr
