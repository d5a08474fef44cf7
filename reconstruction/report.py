# What a run leaves for people: the settings file, the cameras, a video and the report.
from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import yaml

from evaluation import labels
from evaluation.metrics import METRICS, Metrics
from evaluation.report import Report, ReportView, write_report
from evaluation.video import write_video
from generators import Generated
from reconstruction.backgrounds import fixed_background, name_background
from reconstruction.config import Config
from reconstruction.evaluate import Evaluation, evaluate, write_evaluation
from reconstruction.rendering import render_view
from reconstruction.result import ResultFolder
from reconstruction.rounds.record import Round, rounds_to_json
from reconstruction.rounds.report import Control, add_rounds
from reconstruction.state import History
from runtime.files import atomic_path, write_json
from scenes.cameras import Cameras
from scenes.scene import Scene
from splats.gaussians import Splats
from splats.paths import interpolate_path, orbit_path

log = logging.getLogger(__name__)

VIDEO_FRAMES = 120
VIDEO_FPS = 30
CORRECTED = tuple(f"cc_{name}" for name in METRICS)  # with colours fitted to the photo's
PACKAGES = ("torch", "gsplat", "numba", "numpy", "torchmetrics", "lpips")


def write_settings(folder: ResultFolder, settings: dict[str, Any], scene: Scene) -> None:
    """cfg.yml, and cameras.json with what a viewer needs to show the capture's cameras."""
    with atomic_path(folder.settings) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False))
    cameras = {
        "names": scene.names,
        "viewmats": scene.cameras.viewmats,
        "Ks": scene.cameras.Ks,
        "sizes": scene.cameras.sizes,
        "train": scene.split.train,
        "test": scene.split.test,
        "transform": scene.transform,
    }
    write_json(folder.cameras, cameras)


@torch.no_grad()
def write_path_video(
    folder: ResultFolder,
    splats: Splats,
    scene: Scene,
    config: Config,
    kind: str,
    step: int,
) -> None:
    """videos/traj_{step}.mp4 along an "interp" or "ellipse" path of the training cameras, or at
    these ("raw")."""
    background = fixed_background(scene, config)
    device = splats["means"].device
    path = scene.cameras[scene.drop_outliers(scene.split.train)]
    if kind == "raw":
        path = replace_lens(path)
    else:
        make_path = {"interp": interpolate_path, "ellipse": orbit_path}[kind]
        path = make_path(path, VIDEO_FRAMES)

    def frames():
        for i in range(len(path)):
            render = render_view(splats, path[i].to(device), config, background=background)
            yield render.colors[0].clamp(0, 1).cpu()

    write_video(folder.video(step), frames(), VIDEO_FPS)


def replace_lens(cameras: Cameras) -> Cameras:
    """The same poses with the first camera's size and intrinsics: frames of a video are alike."""
    n = len(cameras)
    return Cameras(cameras.viewmats, cameras.Ks[:1].repeat(n, 1, 1), cameras.sizes[:1].repeat(n, 1))


def publish(
    splats: Splats,
    scene: Scene,
    config: Config,
    folder: ResultFolder,
    *,
    step: int,
    settings: dict[str, Any],
    history: History,
    metrics: Metrics,
    video: str | None = None,
    generate: Callable[[Cameras], list[Generated]] | None = None,
    made_by: str | None = None,
    rounds: Sequence[Round] = (),
    color_correction: str | None = None,
) -> None:
    """Measure the held-out views and write statistics, pictures and report; add to `history`.

    step: counted from zero. video: "interp" or "ellipse" to film such a path as well. generate:
    makes a view for each camera, to be measured beside the renders. made_by: what the report calls
    such views, if that is known. rounds: what became of the fix-and-distil rounds.
    color_correction: as in `evaluate`.
    """
    evaluation = evaluate(
        splats,
        scene,
        config,
        metrics,
        step=step,
        generate=generate,
        color_correction=color_correction,
    )
    if evaluation.views:
        history.evaluations.append({"step": step, **evaluation.stats})
        write_evaluation(evaluation, folder)
    if video:
        write_path_video(folder, splats, scene, config, video, step)
    control = Control.read(folder, step) if rounds else None
    report = build_report(evaluation, scene, config, folder, settings, history, metrics)
    if rounds:
        write_json(folder.rounds_stats(step), rounds_to_json(rounds))
        report = add_rounds(report, evaluation, control, rounds, history, made_by)
    write_report(folder.report, report)
    shown = {metric.label: evaluation.stats.get(name) for name, metric in METRICS.items()}
    shown |= {labels.format_label(key, arrow=False): evaluation.stats.get(key) for key in CORRECTED}
    numbers = ", ".join(f"{label} {v:.4g}" for label, v in shown.items() if v is not None)
    log.info("step %d: %s", step + 1, numbers or "no held-out views to measure")
    if rounds and evaluation.views:
        log.info("%s", labels.format_table(report.summary))
    if video or scene.masks is not None or scene.alphas is not None:
        log.info(describe_protocol(metrics, scene, config))
        if metrics.lpips_reason:
            log.info(metrics.lpips_reason)


def build_report(
    evaluation: Evaluation,
    scene: Scene,
    config: Config,
    folder: ResultFolder,
    settings: dict[str, Any],
    history: History,
    metrics: Metrics,
) -> Report:
    """The report of a run, without what its rounds add."""
    name, stats = scene.path.resolve().name, evaluation.stats
    summary = {
        "": "render",
        **{key: stats[key] for key in (*METRICS, *CORRECTED) if key in stats},
        "minutes": round(history.seconds / 60, 2),
    }
    curves = {
        "training PSNR": [(step, psnr) for step, psnr in history.curve],
        "held-out PSNR": [(e["step"] + 1, e["psnr"]) for e in history.evaluations],
    }
    video = folder.video(evaluation.step)
    return Report(
        title=f"Reconstruction of {name}",
        subtitle=f"{len(scene)} views; {scene.split.text}",
        summary=[summary],
        views=[
            ReportView(view.name, {"render": view.render, "ground truth": view.photo}, view.metrics)
            for view in evaluation.views
        ],
        curves={name: points for name, points in curves.items() if points},
        settings=settings,
        versions=describe_versions(metrics.device),
        protocol=describe_protocol(metrics, scene, config),
        facts={
            "Gaussians": evaluation.num_GS,
            "steps": evaluation.step + 1,
            "ms per render": round(1000 * evaluation.seconds, 1),
        },
        notes=[*scene.notes, *([metrics.lpips_reason] if metrics.lpips_reason else [])],
        video=video if video.exists() else None,
    )


def describe_protocol(metrics: Metrics, scene: Scene, config: Config) -> str:
    """How the held-out views were measured: which pixels, on which background, at which size."""
    frame = "full frame, no mask"
    if scene.masks is not None:
        frame = "masked pixels left out (LPIPS: the photo's in both)"
    if scene.alphas is not None:
        frame += f", over {name_background(scene, config)} where photos are transparent"
    text = metrics.describe_protocol("RGB", "float renders clamped to [0,1]", "views", frame)
    return text.format(resolution=describe_resolution(scene))


def describe_resolution(scene: Scene) -> str:
    """Sizes of the held-out views, as 640x480."""
    sizes = scene.cameras.sizes[list(scene.split.test)].unique(dim=0).tolist()
    return ", ".join(f"{width}x{height}" for width, height in sizes)


def describe_versions(device: torch.device) -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on, and the device's name."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {**versions, "device": f"{name}, {torch.get_num_threads()} threads"}
