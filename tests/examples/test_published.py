# The published flags, listed from the trainers themselves, beside the table that speaks of them.
import contextlib
import importlib
import io
import sys
from dataclasses import fields, is_dataclass

import pytest
import torch

from examples.gsplat import flags as trainer_flags
from examples.gsplat.published import PUBLISHED, REFUSED, WORKS
from tests.conftest import ROOT

command = importlib.import_module("examples.gsplat.simple_trainer_difix3d")

# nerfstudio-project/gsplat, examples/simple_trainer.py: version 1.5.3 and main (00877bf)
GSPLAT = """
disable_viewer ckpt compression render_traj_path data_type data_dir data_factor result_dir
test_every patch_size global_scale normalize_world_space camera_model load_exposure
ncore_camera_ids ncore_lidar_ids ncore_seek_offset_sec ncore_duration_sec ncore_max_lidar_points
ncore_poses_component_group ncore_intrinsics_component_group ncore_masks_component_group port
batch_size steps_scaler max_steps eval_steps save_steps save_ply ply_steps disable_video init_type
init_num_pts init_extent sh_degree sh_degree_interval init_opa init_scale ssim_lambda near_plane
far_plane strategy packed sparse_grad visible_adam antialiased random_bkgd means_lr scales_lr
opacities_lr quats_lr sh0_lr shN_lr opacity_reg scale_reg pose_opt pose_opt_lr pose_opt_reg
pose_noise app_opt app_embed_dim app_opt_lr app_opt_reg use_bilateral_grid use_fused_bilagrid
post_processing bilateral_grid_fused bilateral_grid_shape ppisp_use_controller
ppisp_controller_distillation ppisp_controller_activation_num_steps color_correct_method
use_color_correction_metric depth_loss depth_lambda tb_every tb_save_image lpips_net with_ut
with_eval3d
"""
# nv-tlabs/Difix3D, examples/gsplat/simple_trainer_difix3d.py: what it adds
DIFIX = "fix_steps novel_data_lambda"
NAMES = (GSPLAT + DIFIX).split()


def list_fields(kind: type) -> set[str]:
    """The names of the flags of a dataclass and of those in it, without prefixes."""
    names = set()
    for f in fields(kind):
        default = f.default_factory() if callable(f.default_factory) else None
        names |= list_fields(type(default)) if is_dataclass(default) else {f.name}
        names.add(f.name)
    return names


def parse(monkeypatch, *arguments: object):
    monkeypatch.setattr(
        sys, "argv", ["trainer", "default", "--data_dir", ".", *map(str, arguments)]
    )
    return trainer_flags.parse_flags()


def test_every_published_flag_has_a_class_and_is_a_flag():
    assert len(NAMES) == len(set(NAMES))
    assert set(PUBLISHED) == set(NAMES)
    assert set(NAMES) <= list_fields(trainer_flags.Flags)
    for flag in PUBLISHED.values():
        assert flag.status == WORKS or flag.note, flag.name


def test_docs_list_every_published_flag_with_its_class():
    text = (ROOT / "docs" / "trainer.md").read_text()
    section = text.split("## Published flags")[1].split("\n## ")[0]
    for flag in PUBLISHED.values():
        lines = [line for line in section.splitlines() if f"`--{flag.name}`" in line]
        assert len(lines) == 1, flag.name
        assert flag.status in lines[0] and flag.note in lines[0], flag.name


def test_help_says_the_class(capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        parse(monkeypatch, "--help")
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0
    assert "no effect: there is one implementation of bilateral grids" in text
    assert "refused: photos are undistorted when they are loaded" in text


def test_what_people_paste_is_understood(monkeypatch, caplog):
    flags = parse(
        monkeypatch,
        *("--disable_viewer", "--disable-video", "--save_ply", "--ply_steps", 7000, 30000),
        *("--port", 8081, "--batch_size", 2, "--patch_size", 64, "--camera_model", "pinhole"),
        *("--packed", "--sparse_grad", "--depth_loss", "--pose_opt", "--pose_noise", 1e-3),
        *("--app_opt", "--post_processing", "bilateral_grid", "--tb_every", 100),
        *("--data_type", "colmap", "--eval_steps", -1, "--use_fused_bilagrid", "--no-fix"),
    )
    config = flags.optimisation
    assert config.eval_steps == (-1,) == config.scaled().eval_steps
    assert config.ply_steps == (7000, 30000) and config.batch_size == 2
    assert config.use_bilateral_grid and not flags.evaluation.save_video
    assert "--use_fused_bilagrid has no effect" in caplog.text
    caplog.clear()
    trainer_flags.say_what_is_idle(flags, torch.device("cpu"))
    assert [r.args[0] for r in caplog.records] == ["packed", "sparse_grad"]
    assert parse(monkeypatch, "--visible_adam").optimisation.visible_adam


REFUSALS = {
    "camera_model": ["fisheye"],
    "data_type": ["ncore"],
    "post_processing": ["ppisp"],
    "render_traj_path": ["spiral"],
    "with_ut": [],
    "with_eval3d": [],
    "ppisp_use_controller": [],
    "ncore_camera_ids": ["front", "back"],
    "ncore_duration_sec": [2.5],
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refused_flags_and_values_say_why(monkeypatch, name):
    with pytest.raises(ValueError, match=f"--{name}.* is refused") as error:
        parse(monkeypatch, f"--{name}", *REFUSALS[name])
    if PUBLISHED[name].status == REFUSED:
        assert PUBLISHED[name].note in str(error.value)


def test_never_evaluated_runs_leave_splats_alone(capture, tmp_path, trainer):
    code, _, err = trainer(
        *("default", "--data_dir", capture, "--no-fix", "--max_steps", 6, "--eval_steps", -1),
        *("--save_steps", 3, "--ply_steps", 2, "--result_dir", tmp_path, "--tb_every", 2),
        *("--packed", "--batch_size", 2, "--patch_size", 40, "--visible_adam", "--pose_opt"),
        *("--pose_noise", 1e-3),
    )
    assert code == 0, err
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.[pj]*")}
    assert {name for name in names if not name.startswith("tb/")} == {
        *("ckpts/ckpt_2_rank0.pt", "ckpts/ckpt_5_rank0.pt", "cameras.json"),
        *("ply/point_cloud_1.ply", "ply/point_cloud_5.ply"),
        *("stats/train_step0002_rank0.json", "stats/train_step0005_rank0.json"),
    }
    assert err.count("--packed has no effect on a CPU") == 1
    assert "pose_adjust" in torch.load(tmp_path / "ckpts/ckpt_5_rank0.pt", weights_only=True)


BAD = {
    "no tracks": (["--depth_loss"], "--depth_loss needs the points that photos see"),
    "no PLAS": (["--compression", "png"], "--compression png needs"),
    "a layout alone": (["--sparse_grad"], "--sparse_grad needs --packed"),
    "a small crop": (["--patch_size", 4], "--patch_size is 4; it must be at least 11"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_work_is_a_sentence(capture, tmp_path, monkeypatch, case):
    flags, sentence = BAD[case]
    base = ["--no-fix", "--result_dir", tmp_path / "out", "--max_steps", 2]
    monkeypatch.setattr(
        sys, "argv", ["trainer", "default", "--data_dir", str(capture), *map(str, (*base, *flags))]
    )
    with pytest.raises(SystemExit) as stop, contextlib.redirect_stderr(io.StringIO()) as err:
        command.run_command(command.main)
    assert stop.value.code == 2
    assert sentence in err.getvalue().strip().splitlines()[-1]
