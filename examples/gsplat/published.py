# The flags of gsplat's simple_trainer.py (1.5.3, and main as of 2026) and of Difix3D's
# simple_trainer_difix3d.py, each in one of three classes: it works, it has no effect, or it is
# refused. This table is what --help, the parser and docs/trainer.md follow.
from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, Literal

import tyro

log = logging.getLogger(__name__)

WORKS, IDLE, REFUSED = "works", "no effect", "refused"


@dataclass(frozen=True)
class Published:
    """A published flag: its class, what is to be said about it, and the type of its values."""

    name: str
    status: Literal["works", "no effect", "refused"] = WORKS
    note: str = ""
    type: Any = bool


# As published, without a remark.
PLAIN = (
    *("data_dir", "data_factor", "result_dir", "global_scale", "normalize_world_space"),
    *("steps_scaler", "save_steps", "init_num_pts", "init_extent", "init_opa", "init_scale"),
    *("sh_degree", "sh_degree_interval", "ssim_lambda", "near_plane", "far_plane", "strategy"),
    *("antialiased", "random_bkgd", "opacity_reg", "scale_reg", "means_lr", "scales_lr"),
    *("opacities_lr", "quats_lr", "sh0_lr", "shN_lr", "lpips_net", "batch_size", "patch_size"),
    *("visible_adam", "disable_video", "pose_opt", "pose_opt_reg", "pose_noise", "app_embed_dim"),
    *("app_opt_lr", "app_opt_reg", "bilateral_grid_shape", "depth_lambda", "port", "fix_steps"),
    *("novel_data_lambda", "color_correct_method", "max_steps", "tb_save_image"),
)
FIXED = "settings of PPISP, which is not part of this trainer"
NCORE = "captures in the NCore format are not read"

PUBLISHED = {
    flag.name: flag
    for flag in (
        *(Published(name) for name in PLAIN),
        Published("ckpt", note="starts from it; add --eval_only to measure it alone"),
        Published(
            "test_every", note="every N-th view trains, as in Difix3D, unless --split gsplat"
        ),
        Published("eval_steps", note="the last step too; -1: never"),
        Published("save_ply", note="on by default; --no-save_ply"),
        Published("ply_steps", note="default: those of --save_steps"),
        Published("init_type", note="sfm or random"),
        Published("data_type", note="colmap; the format is detected. ncore is refused"),
        Published(
            "camera_model",
            note="pinhole; photos of other lenses are undistorted when they are loaded",
        ),
        Published("render_traj_path", note="interp, ellipse or raw; spiral is refused"),
        Published("disable_viewer", note="the default; otherwise the viewer opens after training"),
        Published("packed", note="on CUDA; without effect on a CPU"),
        Published("sparse_grad", note="on CUDA; without effect on a CPU"),
        Published("pose_opt_lr", note="grows in shorter runs, unless it is given"),
        Published("app_opt", note="needs --no-fix"),
        Published("use_bilateral_grid", note="needs --no-fix"),
        Published("post_processing", note="bilateral_grid; ppisp is refused"),
        Published("use_color_correction_metric", note="always with the two above"),
        Published("depth_loss", note="needs points that a COLMAP model saw in its photos"),
        Published("compression", note="png, where PLAS and TorchPQ are installed"),
        Published("tb_every", note="off by default; needs the package tensorboard"),
        *(
            Published(name, IDLE, "there is one implementation of bilateral grids")
            for name in ("use_fused_bilagrid", "bilateral_grid_fused")
        ),
        Published("load_exposure", IDLE, "exposures in EXIF are for PPISP alone"),
        Published(
            "with_ut",
            REFUSED,
            "photos are undistorted when they are loaded, so that every camera is a pinhole, and "
            "neither the CPU's rasterizer nor gsplat's densification knows unscented transforms",
        ),
        Published(
            "with_eval3d",
            REFUSED,
            "the CPU's rasterizer, and the gradients that densification needs, are of Gaussians "
            "projected to the picture",
        ),
        *(
            Published(f"ppisp_{name}", REFUSED, FIXED, kind)
            for name, kind in (
                ("use_controller", bool),
                ("controller_distillation", bool),
                ("controller_activation_num_steps", int),
            )
        ),
        *(
            Published(f"ncore_{name}", REFUSED, NCORE, kind)
            for name, kind in (
                ("camera_ids", tuple[str, ...]),
                ("lidar_ids", tuple[str, ...]),
                ("seek_offset_sec", float),
                ("duration_sec", float),
                ("max_lidar_points", int),
                ("poses_component_group", str),
                ("intrinsics_component_group", str),
                ("masks_component_group", str),
            )
        ),
    )
}


def _make_group(name: str, status: str, about: str) -> type:
    """A dataclass of the flags of one class, which are None or False where they are not given."""
    members = []
    for flag in PUBLISHED.values():
        if flag.status == status:
            kind, default = (bool, False) if flag.type is bool else (flag.type | None, None)
            help_ = tyro.conf.arg(help=f"{status}: {flag.note}", help_behavior_hint="")
            members.append((flag.name, Annotated[kind, help_], field(default=default)))
    group = make_dataclass(name, members, frozen=True)
    group.__doc__ = about
    return group


IdleFlags = _make_group("IdleFlags", IDLE, "Published flags without effect here.")
RefusedFlags = _make_group("RefusedFlags", REFUSED, "Published flags that are refused.")


def check_published(idle: Any, refused: Any) -> None:
    """Say once which of the given flags have no effect; ValueError for a refused one."""
    for f in fields(refused):
        if getattr(refused, f.name) not in (None, False):
            raise ValueError(f"--{f.name} is refused: {PUBLISHED[f.name].note}")
    for f in fields(idle):
        if getattr(idle, f.name) not in (None, False):
            log.warning("--%s has no effect: %s", f.name, PUBLISHED[f.name].note)
