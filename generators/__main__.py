# python -m generators NAME CAPTURE: pictures and a video of new views, straight from photos.
from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from runtime.command import choose_device, run_command
from runtime.flags import parse_command

if TYPE_CHECKING:
    from torch import Tensor

    from scenes.cameras import Cameras
    from scenes.scene import Scene

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """Make new views of a capture from its photos in one pass, without optimising a scene.

    Views go to OUTPUT_DIR/views/*.png, and along a path to views.mp4 as well; of held-out photos
    the metrics are printed and written to metrics.json."""

    name: tyro.conf.Positional[Literal["efficient_lvsm"]]
    """The generator."""
    capture: tyro.conf.Positional[Path]
    """A capture, in any format that python -m scenes reads."""
    checkpoint: Path | None = None
    """Weights, ours or the original's (efficient_lvsm_res256.pt). Default: the included ones."""
    targets: str = "path"
    """path: along the photos' cameras; test: the held-out photos' cameras; or a cameras.json or
    transforms.json in the capture's world."""
    views: int = 8
    """Most photos that are looked at, chosen evenly."""
    frames: int = 60
    """Number of views along the path."""
    fps: float = 30
    """Frames per second of the video."""
    output_dir: Path | None = None
    """Default: results/generated/<the capture's name>."""
    data_factor: int = 0
    """Photos at 1/N of their size; 0: no side over 1,600 pixels."""
    test_every: int | None = None
    """Split, as in python -m scenes: train on every N-th view and test on the others."""
    image_folder: Path | None = None
    """Folder of the photos in the capture, if not the usual one."""
    dtype: Literal["auto", "float32", "bf16"] = "auto"
    """auto: bf16 where the device multiplies it."""
    device: str | None = None
    """Default: cuda if available, else cpu."""
    backbones: Path | None = None
    """Folder with the weights of LPIPS's networks, as for the trainer."""

    def __post_init__(self) -> None:
        for flag in ("views", "frames"):
            if getattr(self, flag) < 1:
                raise ValueError(f"--{flag} {getattr(self, flag)} must be at least 1")
        if not 0 < self.fps < float("inf"):
            raise ValueError(f"--fps {self.fps} must be more than 0")


def main(options: Options) -> None:
    """Load, generate, write. Raises ValueError or OSError, naming the file or flag."""
    device = choose_device(options.device)

    import scenes
    from generators.efficient_lvsm import EfficientLVSMViews, load_model
    from generators.generator import References
    from runtime.arguments import naming_flags
    from runtime.files import make_writable_folder

    with naming_flags(checkpoint="--checkpoint"):
        model = load_model(options.checkpoint, device=device, dtype=options.dtype)
    scene = scenes.load(
        options.capture,
        data_factor=options.data_factor,
        test_every=options.test_every,
        split=None if options.targets == "test" or options.test_every is not None else "all",
        image_folder=options.image_folder,
    )
    cameras = choose_cameras(options, scene)
    output = options.output_dir or Path("results/generated") / scene.path.resolve().name
    make_writable_folder(output)
    generator = EfficientLVSMViews(model, views=options.views)
    references = References.from_scene(scene, scene.split.train)
    images = [view.image for view in generator.generate(references, cameras)]
    log.info("from %d photos: %s", len(generator.names), ", ".join(generator.names))
    write(images, output, options, scene)


def choose_cameras(options: Options, scene: Scene) -> Cameras:
    """The cameras that --targets asks for."""
    from scenes.trajectory import check_inside, read_trajectory
    from splats.paths import interpolate_path

    if options.targets == "path":
        train = scene.cameras[list(scene.split.train)]
        return interpolate_path(train, options.frames, keyframes=len(train))
    if options.targets == "test":
        if not scene.split.test:
            raise ValueError(
                "--targets test: no view is held out; use path, or another --test_every"
            )
        return scene.cameras[list(scene.split.test)]
    cameras = read_trajectory(Path(options.targets), scene, "--targets")
    check_inside(cameras, scene, Path(options.targets))
    return cameras


def write(images: list[Tensor], output: Path, options: Options, scene: Scene) -> None:
    """Pictures, and a video or metrics."""
    from evaluation.pictures import save_png
    from evaluation.video import write_video

    tested = options.targets == "test"
    earlier = [*output.glob("views/*.png"), output / "views.mp4", output / "metrics.json"]
    earlier = [path for path in earlier if path.exists()]
    if earlier:
        log.info("%s has the results of an earlier call, which are removed", output)
        for path in earlier:
            path.unlink()
    for i, image in enumerate(images):
        name = Path(scene.names[scene.split.test[i]]).stem if tested else f"{i:05d}"
        save_png(output / "views" / f"{name}.png", image)
    log.info("%d views in %s", len(images), output / "views")
    if tested:
        measure(images, output, options, scene)
    elif len({tuple(image.shape) for image in images}) == 1 and len(images) > 1:
        write_video(output / "views.mp4", images, options.fps)
        log.info("video: %s", output / "views.mp4")


def measure(images: list[Tensor], output: Path, options: Options, scene: Scene) -> None:
    """Metrics against the held-out photos, printed as a table and written."""
    from evaluation.labels import format_table
    from evaluation.metrics import Metrics, average
    from runtime.files import write_json

    metrics = Metrics("both", "cpu", options.backbones)
    if metrics.lpips_reason:
        log.warning("%s", metrics.lpips_reason)
    rows = {
        scene.names[view]: metrics(image, scene.image(view), scene.mask(view))
        for image, view in zip(images, scene.split.test, strict=True)
    }
    mean = average(list(rows.values()))
    log.info(
        "%s", format_table([{"view": name} | row for name, row in [*rows.items(), ("mean", mean)]])
    )
    write_json(output / "metrics.json", {"mean": mean, "views": rows})
    log.info("metrics: %s", output / "metrics.json")


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python -m generators")))
