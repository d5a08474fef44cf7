# A video as a capture: its sharp frames, evenly spread in time, as photos.
from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.files import atomic_path, replace_folder, write_json
from runtime.progress import ProgressBar
from scenes.capture import FEWEST_VIEWS
from scenes.work import work_folder

log = logging.getLogger(__name__)

SUFFIXES = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".3gp", ".mts", ".m2ts", ".mpg"}
MARKER = "video_frames.json"  # beside images/: from which video its frames are
PER_SECOND = 3  # frames taken by default,
FEWEST, MOST = 60, 150  # but at least and at most so many
CANDIDATES = 10  # frames of which the sharpest is taken
SHARPNESS_SIDE = 640  # pixels of the frames that are compared


def is_video(path: Path) -> bool:
    """Whether a path is an existing file with a video's suffix."""
    return path.suffix.lower() in SUFFIXES and path.is_file()


def list_videos(folder: Path) -> list[Path]:
    """The videos in a folder, sorted, without hidden ones."""
    return sorted(f for f in folder.iterdir() if is_video(f) and not f.name.startswith("."))


@dataclass(frozen=True)
class _Video:
    """fps as stated; seconds: those that can be decoded, of `stated` ones."""

    fps: float
    seconds: float
    stated: float


def extract_frames(
    video: Path, capture: Path, count: int | None = None, progress: bool = True
) -> str:
    """Write sharp frames of a video to `capture`/images, upright, and return a note about them.

    The video is cut into `count` windows of equal length, and the sharpest frame of each is taken:
    the one of CANDIDATES with the largest variance of the Laplacian (Pech-Pacheco et al., "Diatom
    autofocusing in brightfield microscopy", 2000). count: by default PER_SECOND, at least FEWEST
    and at most MOST. Frames that are there are kept; a stopped extraction continues. Raises
    ValueError if the video cannot be read or is too short, or if there are frames of another
    extraction.
    """
    if count is not None and count < FEWEST_VIEWS:
        raise ValueError(f"--video_frames {count} must be at least {FEWEST_VIEWS}")
    stat = video.stat()
    source = {"video": video.name, "bytes": stat.st_size, "modified": stat.st_mtime_ns}
    if (capture / "images").is_dir():
        return _read_note(capture, source, count)
    if (capture / "sparse").exists():
        raise ValueError(
            f"{capture / 'sparse'} has the poses of other frames than those of {video.name} that "
            "would be taken now; delete it"
        )
    key = source | {"count": count}
    with work_folder(capture / ".frames", key, f"taking frames of {video.name}") as work:
        content = _probe(video)
        most = int(content.seconds * content.fps + 0.5)
        if most < FEWEST_VIEWS:
            raise ValueError(
                f"{video} has only {most} frames that can be read; at least {FEWEST_VIEWS} are "
                "needed"
            )
        wanted = count or min(max(round(PER_SECOND * content.seconds), FEWEST), MOST)
        n = min(wanted, most)
        log.info("taking %d frames of %s", n, video)
        (work / "images").mkdir(exist_ok=True)
        taken = _extract(video, work / "images", content, n, progress)
        if taken < FEWEST_VIEWS:
            raise ValueError(f"{video} is damaged: only {taken} frames can be read")
        note = (
            f"{taken} frames of {video.name} are the photos, the sharpest of every "
            f"{content.seconds / n:.2g} s (--video_frames), in {capture.name}/images"
        )
        if count is not None and n < count:
            note += f"; it has no {count}"
        if content.seconds < 0.9 * content.stated:
            note += (
                f"; the video is damaged: {content.seconds:.1f} of {content.stated:.1f} s can be "
                "read"
            )
        write_json(capture / MARKER, {**source, "count": count, "frames": taken, "note": note})
        replace_folder(work / "images", capture / "images")
    return note


def _read_note(capture: Path, source: dict[str, object], count: int | None) -> str:
    """The note of the frames that are there; ValueError if they are not those that are wanted."""
    file = capture / MARKER
    try:
        marker = json.loads(file.read_text())
        same = source.items() <= marker.items() and count in (None, marker["count"])
        if same and isinstance(marker["note"], str):
            return marker["note"]
        what = f"{marker['frames']} frames of an earlier time"
    except (OSError, ValueError, KeyError, AttributeError):
        what = "photos of unknown origin"
    raise ValueError(
        f"{capture / 'images'} holds {what}, not the frames of {source['video']} that are wanted "
        "now; delete it, and sparse beside it, to take them anew"
    )


def _probe(video: Path) -> _Video:
    import imageio_ffmpeg

    with _reading(video):
        with closing(imageio_ffmpeg.read_frames(str(video))) as frames:
            meta = next(frames)
        _, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
    return _Video(float(meta["fps"]) or 30.0, float(seconds), float(meta["duration"]))


def _extract(video: Path, folder: Path, content: _Video, n: int, progress: bool) -> int:
    """Write the sharpest frame of each of n windows that is not there yet; returns their number."""
    each = max(1, min(CANDIDATES, int(content.seconds * content.fps / n)))
    done = len(list(folder.glob("frame_*.jpg")))
    start = max(0, done - 1)  # the last one may be of a window that was not finished
    length = content.seconds / n
    with ProgressBar(
        total=n, initial=start, desc="frames", unit="frame", disable=not progress, leave=False
    ) as bar:
        frames = _read_frames(video, start * length, each / length)
        for window in range(start, n):
            best, most = None, -1.0
            for _ in range(each):
                frame = next(frames, None)
                if frame is None:
                    break
                sharpness = measure_sharpness(frame)
                if sharpness > most:
                    best, most = frame, sharpness
            if best is None:
                return window
            with atomic_path(folder / f"frame_{window + 1:05d}.jpg") as temporary:
                Image.fromarray(best).save(temporary, "JPEG", quality=95, subsampling=0)
            bar.update(1)
    return n


def _read_frames(video: Path, start: float, rate: float) -> Iterator[np.ndarray]:
    """Frames [H, W, 3], upright, from `start` in seconds on, `rate` a second."""
    import imageio_ffmpeg

    with _reading(video):
        frames = imageio_ffmpeg.read_frames(
            str(video),
            pix_fmt="rgb24",
            input_params=["-ss", f"{start:.6f}"],
            output_params=["-r", f"{rate:.6f}"],
        )
        with closing(frames):
            width, height = next(frames)["size"]
            for data in frames:
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)


def measure_sharpness(frame: np.ndarray) -> float:
    """The variance of the Laplacian of a frame [H, W, 3], shrunk to SHARPNESS_SIDE."""
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    scale = SHARPNESS_SIDE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


@contextmanager
def _reading(video: Path) -> Iterator[None]:
    """Silence the reader's remarks (on turned videos); its errors name the video."""
    remarks = logging.getLogger("imageio_ffmpeg")
    level = remarks.level
    remarks.setLevel(logging.ERROR)
    try:
        yield
    except (OSError, RuntimeError, StopIteration):
        raise ValueError(
            f"{video} is not a video that can be read: empty, damaged, or without pictures"
        ) from None
    finally:
        remarks.setLevel(level)
