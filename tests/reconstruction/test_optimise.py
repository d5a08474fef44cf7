import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gsplat.strategy import DefaultStrategy, MCMCStrategy

import reconstruction
from reconstruction import Config, EvaluationConfig, Start, evaluate_only, optimise
from reconstruction.optimizer import means_rate
from reconstruction.rendering import render_view
from reconstruction.result import ResultFolder
from reconstruction.start import initial_splats
from reconstruction.trainer import Trainer
from runtime.interrupts import Stopped, handled_signals
from scenes.scene import Scene, Split

QUICK = EvaluationConfig(save_video=False)
STRATEGIES = {
    "default": DefaultStrategy(
        refine_start_iter=5, refine_every=10, reset_every=30, refine_stop_iter=50, grow_grad2d=1e-5
    ),
    "mcmc": MCMCStrategy(refine_start_iter=5, refine_every=10, refine_stop_iter=50, cap_max=110),
}


def config_of(name: str, **changes) -> Config:
    preset = getattr(reconstruction, name)()
    values = {"max_steps": 60, "sh_degree_interval": 20, "random_bkgd": True, **changes}
    return replace(preset, strategy=STRATEGIES[name], **values)


def psnr(splats, scene: Scene) -> float:
    errors = []
    with torch.no_grad():
        for view in scene.split.test:
            render = render_view(splats, scene.cameras[view], Config()).colors[0].clamp(0, 1)
            errors.append((render - scene.image(view)).square().mean())
    return -10 * torch.stack(errors).mean().log10().item()


class StopAt:
    """Presses Ctrl-C during a chosen step."""

    def __init__(self, monkeypatch, step: int) -> None:
        original = Trainer.step

        def stopping(trainer, *arguments):
            if trainer.state.done == step:
                os.kill(os.getpid(), signal.SIGINT)
            return original(trainer, *arguments)

        monkeypatch.setattr(Trainer, "step", stopping)


@pytest.mark.parametrize("name", ["default", "mcmc"])
def test_optimising_improves_held_out_views_and_adds_gaussians(scene, name):
    config = config_of(name, max_steps=150, random_bkgd=False)
    before = initial_splats(scene, config)
    after = optimise(scene, config)
    assert psnr(after, scene) > psnr(before, scene) + 2.5
    assert after.count > before.count


@pytest.mark.parametrize("name", ["default", "mcmc"])
@pytest.mark.parametrize("stop", [3, 24, 47])
def test_a_stopped_run_continues_bit_for_bit(scene, name, stop, tmp_path, monkeypatch):
    config = config_of(name)
    straight = optimise(scene, config)
    with monkeypatch.context() as patch:
        StopAt(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    assert (tmp_path / "resume.pt").exists()
    torch.rand(7)  # whatever happens to the caller's random state in between
    resumed = optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    assert straight.count == resumed.count != initial_splats(scene, config).count
    for key, value in straight.items():
        assert torch.equal(value, resumed[key]), key
    assert not (tmp_path / "resume.pt").exists()


def test_a_run_leaves_the_callers_random_state_alone(scene):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    optimise(scene, config_of("mcmc", max_steps=3))
    assert torch.equal(torch.rand(3), expected)


def test_a_finished_run_has_gsplats_files_and_is_only_evaluated_again(scene, tmp_path):
    config = config_of("default", max_steps=20, eval_steps=(10,), save_steps=(10,))
    splats = optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    expected = {"cfg.yml", "cameras.json", "report/index.html"}
    for step in (9, 19):
        expected |= {
            f"ckpts/ckpt_{step}_rank0.pt",
            f"ply/point_cloud_{step}.ply",
            f"stats/train_step{step:04d}_rank0.json",
            f"stats/val_step{step:04d}.json",
            f"stats/val_step{step:04d}_per_view.json",
            *(
                f"renders/val/{step}/{k}/{i:04d}.png"
                for k in ("GT", "Pred", "Alpha", "Holes")
                for i in (0, 1)
            ),
        }
    files = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert files == expected
    stats = json.loads((tmp_path / "stats/val_step0019.json").read_text())
    assert set(stats) == {"psnr", "ssim", "lpips", "ellipse_time", "num_GS"}
    assert stats["num_GS"] == splats.count
    stored = torch.load(tmp_path / "ckpts/ckpt_19_rank0.pt", weights_only=True)
    assert stored["step"] == 19 and set(stored["splats"]) == set(splats)

    (tmp_path / "report/index.html").unlink()
    written = (tmp_path / "ckpts/ckpt_19_rank0.pt").stat().st_mtime_ns
    again = optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    assert torch.equal(again["means"], splats["means"])
    assert (tmp_path / "report/index.html").exists()
    assert (tmp_path / "ckpts/ckpt_19_rank0.pt").stat().st_mtime_ns == written


def test_other_settings_in_the_same_folder_are_refused_by_name(scene, tmp_path):
    config = config_of("default", max_steps=4)
    optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    other = replace(config, ssim_lambda=0.5, eval_steps=(3,))
    with pytest.raises(
        ValueError, match=r"--ssim_lambda was 0.2, now 0.5\); .*--no-resume"
    ) as error:
        optimise(scene, other, result_dir=tmp_path, evaluation=QUICK)
    assert "eval_steps" not in str(error.value)
    (tmp_path / "mine.txt").write_text("not the run's")
    optimise(scene, other, result_dir=tmp_path, evaluation=QUICK, resume=False)
    assert (tmp_path / "mine.txt").exists()


def test_starting_from_a_checkpoint_goes_on_from_its_step(scene, tmp_path):
    config = config_of("default", max_steps=8, save_steps=(8,))
    optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    start = Start.from_checkpoint(tmp_path / "ckpts/ckpt_7_rank0.pt")
    assert start.step == 8
    with pytest.raises(ValueError, match="8 steps already"):
        optimise(scene, config, start=start)
    longer = replace(config, max_steps=12)
    optimise(scene, longer, result_dir=tmp_path, start=start, evaluation=QUICK)
    assert list(ResultFolder(tmp_path).checkpoints()) == [7, 11]


def test_a_diverging_run_stops_with_a_sentence_and_keeps_the_last_good_state(scene, tmp_path):
    config = config_of("default", sh0_lr=1e37, save_every_seconds=1e-9)
    with pytest.raises(ValueError, match="diverged at step"):
        optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    for value in torch.load(tmp_path / "resume.pt", weights_only=True)["splats"].values():
        assert value.isfinite().all()


def test_means_rate_decays_to_one_percent():
    config = Config(max_steps=1000)
    assert means_rate(config, 2.0, 0) == pytest.approx(3.2e-4)
    assert means_rate(config, 2.0, 1.0) == pytest.approx(3.2e-6)


def test_steps_scaler_shortens_the_whole_schedule():
    scaled = Config(max_steps=30_000, eval_steps=(7_000,), steps_scaler=0.1).scaled()
    assert (scaled.max_steps, scaled.eval_steps, scaled.sh_degree_interval) == (3000, (700,), 100)
    strategy = scaled.strategy
    assert (strategy.refine_start_iter, strategy.refine_stop_iter) == (50, 1500)
    assert (strategy.refine_every, strategy.reset_every) == (100, 300)


def test_opacities_are_reset_although_gsplat_forgets_to(scene):
    trainer = Trainer(
        scene,
        replace(Config(), strategy=DefaultStrategy(reset_every=5, refine_start_iter=100)),
        torch.device("cpu"),
    )
    for _ in range(6):
        trainer.step()
    assert trainer.state.splats["opacities"].sigmoid().max().item() == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{"max_steps": 0}, {"means_lr": -1.0}, {"sh_degree": 4}, {"steps_scaler": float("nan")},
     {"eval_steps": (0,)}, {"init_opa": 1.0}, {"near_plane": 2.0, "far_plane": 1.0}],
)  # fmt: skip
def test_absurd_settings_are_refused_by_flag(changes):
    with pytest.raises(ValueError, match=f"--{next(iter(changes))}|--far_plane"):
        Config(**changes)


def test_captures_without_points_need_a_random_start(scene):
    values = {**scene.__dict__, "points": torch.zeros(0, 3), "point_colors": torch.zeros(0, 3)}
    with pytest.raises(ValueError, match="--init_type random"):
        initial_splats(Scene(**values), Config())
    splats = initial_splats(Scene(**values), Config(init_type="random", init_num_pts=300))
    assert splats.count == 300
    without = {"kind": "transforms.json", "needs_points": False}
    splats = initial_splats(Scene(**{**values, **without}), Config(init_num_pts=300))
    assert splats["means"].abs().max() < 4 * scene.scale


def test_no_training_view_is_refused(scene):
    values = {**scene.__dict__, "split": Split("json", (), (0, 1), "json: nothing trains")}
    with pytest.raises(ValueError, match="no training view"):
        optimise(Scene(**values), Config())


def test_result_folder_clears_only_what_runs_write(tmp_path: Path):
    folder = ResultFolder(tmp_path)
    for file in (folder.checkpoint(5), folder.checkpoint(20), folder.resume, tmp_path / "notes"):
        file.parent.mkdir(exist_ok=True, parents=True)
        file.touch()
    folder.clear(first=10)
    assert folder.checkpoint(5).exists() and (tmp_path / "notes").exists()
    assert not folder.checkpoint(20).exists() and not folder.resume.exists()


def test_the_cap_holds_for_the_captures_points_too(scene):
    config = reconstruction.mcmc()
    cap = len(scene.points) // 2
    config = replace(config, strategy=replace(config.strategy, cap_max=cap))
    assert initial_splats(scene, config).count == cap


@pytest.mark.parametrize("moment", ["evaluation", "saving", "report"])
def test_a_run_stopped_between_its_steps_continues_bit_for_bit(
    scene, moment, tmp_path, monkeypatch
):
    config = config_of("default", max_steps=20, eval_steps=(10,), save_steps=(10,))
    owner, name = {
        "evaluation": (reconstruction.evaluate, "render_view"),
        "saving": (reconstruction.session.ply, "write"),
        "report": (reconstruction.report, "write_report"),
    }[moment]
    original = getattr(owner, name)

    def stopping(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return original(*arguments, **options)

    straight = optimise(scene, config)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopping)
        with pytest.raises(Stopped) as stop, handled_signals(at_once=True):
            optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    assert stop.value.code == 143
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["done"] == 10
    resumed = optimise(scene, config, result_dir=tmp_path, evaluation=QUICK)
    for key, value in straight.items():
        assert torch.equal(resumed[key], value), key
    assert (tmp_path / "stats" / "val_step0009.json").exists()


def test_a_second_run_in_the_folder_is_refused(scene, tmp_path, run_elsewhere):
    config = config_of("default", max_steps=1)
    start = Start(initial_splats(scene, config), 1, "elsewhere")
    with run_elsewhere(tmp_path) as process:
        for run in (
            lambda: optimise(scene, config, result_dir=tmp_path, evaluation=QUICK),
            lambda: evaluate_only(scene, start, config, QUICK, tmp_path),
        ):
            with pytest.raises(ValueError, match=f"process {process.pid} on .*--result_dir"):
                run()
    assert not any(tmp_path.iterdir())
