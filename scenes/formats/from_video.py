# A video in place of a capture: its frames become one.
from __future__ import annotations

from pathlib import Path

from runtime.text import format_list
from scenes.formats.registry import find_poses
from scenes.formats.unposed import find_photos
from scenes.video import MARKER, extract_frames, is_video, list_videos


def prepare_video(path: Path, frames: int | None, progress: bool) -> tuple[Path, list[str]]:
    """The folder of the capture that `path` means, and notes on frames that were taken.

    path: a video, whose frames go to the capture NAME_frames beside it, or a folder without poses
    and photos that holds one, whose frames go to its `images`. Any other path is returned as it is.
    frames: how many, see `scenes.video.extract_frames`; ValueError if there is no video to take
    them from, or several.
    """
    if is_video(path):
        capture = path.with_name(f"{path.stem}_frames")
        return capture, [extract_frames(path, capture, frames, progress)]
    videos = list_videos(path) if path.is_dir() else []
    taken = (path / MARKER).is_file()
    if (taken and len(videos) == 1) or (videos and not (find_poses(path) or find_photos(path)[1])):
        if len(videos) > 1:
            few = format_list([video.name for video in videos], 5)
            raise ValueError(f"{path} has no photos but {len(videos)} videos; name one: {few}")
        return path, [extract_frames(videos[0], path, frames, progress)]
    if frames is not None and path.exists():
        raise ValueError(f"--video_frames {frames} is for a video, or a folder that has only one")
    return path, []
