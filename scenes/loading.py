# From a folder on disk to a Scene: read the capture, decode its photos, split.
from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch

from runtime.text import format_count, format_list
from scenes.cameras import Cameras
from scenes.capture import Capture, check_view_count
from scenes.formats.from_video import prepare_video
from scenes.formats.registry import read_capture
from scenes.frame import choose_frame
from scenes.masks import describe_masks, find_masks
from scenes.normalize import transform_points, transform_viewmats
from scenes.outliers import FAR_POINT, find_outlying_points
from scenes.photos import (
    Sources,
    UnreadablePhoto,
    find_photos,
    find_sources,
    is_no_photo,
    list_photos,
    read_header,
    shrink_size,
)
from scenes.scene import Scene, Split
from scenes.split import make_split
from scenes.views import View, decode_views

log = logging.getLogger(__name__)
NO_PHOTO_NAME = re.compile(r"_(depth|normal|alpha|mask)(_\d+)?$", re.I)  # pictures beside photos
SHORTEST_SIDE = 16  # of a photo in pixels; SSIM needs 11


def load(
    path: Path | str,
    *,
    data_factor: int = 1,
    longest_side: int = 1600,
    split: str | None = None,
    test_every: int | None = None,
    split_file: Path | str | None = None,
    image_folder: Path | str | None = None,
    video_frames: int | None = None,
    normalize: bool = False,
    progress: bool = True,
) -> Scene:
    """Read a capture: a COLMAP model (also DL3DV-Benchmark's), else transforms.json, else an export
    of another program (Metashape, RealityCapture, OpenSfM, OpenMVG, AliceVision, VisualSFM,
    Bundler, Polycam, Record3D, LLFF), else photos.

    Photos alone are posed by structure from motion, and the model is saved as `sparse/0`. Of a
    video (a file, or alone in a folder), sharp frames are the photos, saved beside it.
    data_factor: photos at 1/N of their size (`images_N`, else resized and cached); 0: the smallest
        N at which no side of a photo exceeds `longest_side` pixels.
    split, test_every, split_file: see `scenes.split.make_split`; without them the rule is
        detected, and `test_every` alone means Difix3D's: every N-th view trains.
    image_folder: the photos' folder, if not the usual one (absolute or relative to `path`).
        `images_N` needs the data factor N, or 1 for its photos as they are.
    video_frames: how many frames of a video are taken (default: 3 a second, 60 to 150).
    normalize: recentre, align and scale the world. Without it, a world stays as it is, unless it
        lies so far from its origin that it must be shifted. `Scene.transform` is what was applied.
    progress: show progress bars.
    Raises FileNotFoundError or ValueError; the message names the file or flag.
    """
    path, video_notes = prepare_video(Path(path), video_frames, progress)
    if not path.is_dir():
        reason = "is not a folder" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {reason}; give the folder of a capture, or a video")
    data_factor = _whole("--data_factor", data_factor, 0)
    longest_side = _whole("longest_side", longest_side, SHORTEST_SIDE)
    folder = _choose_photo_folder(path, image_folder, data_factor)
    split_of = partial(make_split, rule=split, test_every=test_every, split_file=split_file)

    capture = read_capture(path, folder, split_of, progress)
    check_view_count(len(capture.names), "view", path, " with a pose", "; ".join(capture.notes[:2]))
    data_factor = data_factor or _fitting_factor(capture, longest_side)
    photos = capture.photos or capture.names
    photo_of = dict(zip(capture.names, photos, strict=True)) if capture.photos else {}

    def split_views(names: tuple[str, ...]) -> Split:
        of_views = tuple(photo_of[name] for name in names) if photo_of else None
        return split_of(names, stated=capture.split, photos=of_views)

    sources = find_sources(capture.photo_folder, photos, data_factor)
    pairs = zip(capture.names, sources.paths, strict=True)
    names = tuple(name for name, photo in pairs if photo)
    check_view_count(len(names), "view", path, " with a photo")
    split_views(names)  # raises errors before photos are decoded
    _check_sizes(sources, data_factor)
    masks, notes = capture.masks, []
    if masks is None:
        masks, notes = find_masks(path, capture.photo_folder, photos, data_factor)
    views, skipped = decode_views(capture, sources, list(masks), data_factor, progress)
    notes = [
        *video_notes,
        *capture.notes,
        *_describe_unposed(path, capture),
        *sources.notes,
        *notes,
    ]
    notes += skipped
    check_view_count(len(views), "view", path, " with a readable photo", "; ".join(skipped[:2]))
    views = _drop_hidden(views, notes)
    notes += _describe_alphas(views)
    check_view_count(
        *(len(views), "view", path, " of which masks and alpha leave any pixels"),
        "black in a mask means ignore: are the masks inverted?" if any(masks) else "",
    )

    points, colors, seen = _drop_far_points(capture, notes)
    viewmats = np.stack([view.viewmat for view in views])
    notes += _describe_twins(views, viewmats)
    names = tuple(view.name for view in views)
    transform, frame_notes = choose_frame(names, viewmats, points, normalize)
    notes += frame_notes
    scene = Scene(
        path=path,
        kind=capture.kind,
        names=names,
        cameras=Cameras(
            torch.from_numpy(transform_viewmats(transform, viewmats)).float(),
            torch.from_numpy(np.stack([view.K for view in views])).float(),
            torch.tensor([view.image.shape[1::-1] for view in views]),
        ),
        images=tuple(view.image for view in views),
        points=torch.from_numpy(transform_points(transform, points)).float(),
        point_colors=torch.from_numpy(colors),
        split=split_views(names),
        data_factor=data_factor,
        transform=torch.from_numpy(transform),
        notes=tuple(notes),
        needs_points=capture.needs_points,
        alphas=_gather(views, "alpha"),
        masks=_gather(views, "mask"),
        background=capture.background,
        seen=seen and tuple(seen[name] for name in names),
    )
    sizes = sorted({f"{width}x{height}" for width, height in scene.cameras.sizes.tolist()})
    log.info(
        "%s: %s, %d views of %s, %d points",
        *(path, scene.kind, len(scene), ", ".join(sizes), len(scene.points)),
    )
    log.info("split %s", scene.split.text)
    for note in notes:
        log.warning("%s", note)
    return scene


def _describe_twins(views: list[View], viewmats: np.ndarray) -> list[str]:
    """A note on views with exactly the pose of an earlier one."""
    _, firsts = np.unique(viewmats.reshape(len(views), -1), axis=0, return_index=True)
    twins = [view.name for i, view in enumerate(views) if i not in set(firsts.tolist())]
    if not twins:
        return []
    have = "has" if len(twins) == 1 else "have"
    what = format_count(len(twins), "view")
    return [f"{what} {have} exactly the pose of another one: {format_list(twins, 3)}"]


def _describe_unposed(path: Path, capture: Capture) -> list[str]:
    """A note on photos beside those of the views that have no pose."""
    folder = capture.photo_folder
    used = {file for file in find_photos(folder, capture.photos or capture.names) if file}
    if folder != path:
        listed = [folder / name for name in list_photos(folder, deep=True) if not is_no_photo(name)]
    else:  # sub-folders may be anything
        listed = [place / name for place in {f.parent for f in used} for name in list_photos(place)]
    names = sorted(
        file.relative_to(folder).as_posix()
        for file in listed
        if file not in used and not NO_PHOTO_NAME.search(file.stem)
    )
    if not used or not names:
        return []
    have = "has" if len(names) == 1 else "have"
    what = format_count(len(names), "photo")
    return [f"{what} in {folder} {have} no pose and will not be used: {format_list(names, 5)}"]


def _drop_far_points(
    capture: Capture, notes: list[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray] | None]:
    """The capture's points and colours without outliers, which would start as huge splats, and the
    points that each view saw, by its name."""
    outlying = find_outlying_points(capture.points)
    seen = capture.seen and dict(zip(capture.names, capture.seen, strict=True))
    if not outlying.any():
        return capture.points, capture.colors, seen
    if seen:
        number = np.cumsum(~outlying) - 1
        seen = {name: number[points[~outlying[points]]] for name, points in seen.items()}
    what = format_count(int(outlying.sum()), "point")
    notes.append(f"skipped {what} over {FAR_POINT:g} times as far out as the median")
    return capture.points[~outlying], capture.colors[~outlying], seen


def _drop_hidden(views: list[View], notes: list[str]) -> list[View]:
    """The views of which masks and alpha leave pixels, and notes about those."""
    notes += describe_masks([view.name for view in views], [view.mask for view in views])
    black = [view.name for view in views if view.mask is not None and not view.mask.any()]
    clear = [view.name for view in views if view.alpha is not None and not view.alpha.any()]
    for hidden, what in ((black, "all black in the mask"), (clear, "wholly transparent")):
        if hidden:
            count = format_count(len(hidden), "view")
            notes.append(f"skipped {count} {what}: {format_list(hidden, 3)}")
    return [view for view in views if view.name not in {*black, *clear}]


def _describe_alphas(views: list[View]) -> list[str]:
    """How much of the photos with alpha is transparent."""
    alphas = [view.alpha for view in views if view.alpha is not None]
    if not alphas:
        return []
    share = 1 - sum(alpha.mean() for alpha in alphas) / 255 / len(alphas)
    what = format_count(len(alphas), "photo")
    return [f"{what} with alpha, {100 * share:.1f} % transparent, where no splats will grow"]


def _gather(views: list[View], layer: str) -> tuple[np.ndarray | None, ...] | None:
    """`alpha` or `mask` of each view; None if none has it."""
    values = tuple(getattr(view, layer) for view in views)
    return None if all(value is None for value in values) else values


def _choose_photo_folder(
    path: Path, image_folder: Path | str | None, data_factor: int
) -> Path | None:
    """The photos' folder, or None for the usual one; images_N with factor N is a usual one."""
    if image_folder is None:
        return None
    folder = path / image_folder
    if not folder.is_dir():
        reason = "is not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"--image_folder {folder} {reason}")
    smaller = re.fullmatch(r"images_(\d+)", folder.name)
    if not smaller or data_factor < 2:
        return folder
    if int(smaller[1]) != data_factor:
        raise ValueError(
            f"--image_folder {folder} has photos at 1/{smaller[1]} of their size, which "
            f"--data_factor {data_factor} would shrink again; use --data_factor {smaller[1]}"
        )
    return None


def _whole(name: str, value: object, least: int) -> int:
    if not isinstance(value, int | float | np.integer) or value < least or value % 1 != 0:
        raise ValueError(f"{name} {value} must be a whole number, {least} or more")
    return int(value)


def _fitting_factor(capture: Capture, longest_side: int) -> int:
    """The smallest factor at which no side of a readable photo is over `longest_side` pixels.

    Of a panorama, the sides of the views that are cut from it.
    """
    photos = capture.photos or capture.names
    paths = find_sources(capture.photo_folder, photos, 1).paths
    longest = max((max(size) for _, *size in _sizes(paths)), default=1)
    if any(lens.model == "EQUIRECTANGULAR" for lens in capture.lenses):
        longest = round(longest / math.pi)
    return -(-longest // longest_side)


def _check_sizes(sources: Sources, factor: int) -> None:
    """ValueError if a photo has too few pixels to be of use at this factor."""
    for path, *size in _sizes(sources.paths):
        width, height = shrink_size(*size, sources.shrink)
        if min(width, height) < SHORTEST_SIDE:
            raise ValueError(
                f"{path} is {width}x{height}, under {SHORTEST_SIDE} pixels a side"
                if factor == 1
                else f"--data_factor {factor} makes the photos {width}x{height} ({path.name}), "
                f"under {SHORTEST_SIDE} pixels a side; use a smaller factor"
            )


def _sizes(paths: list[Path | None]) -> Iterator[tuple[Path, int, int]]:
    """Path, width and height of every photo that is there and readable."""
    for path in filter(None, paths):
        with suppress(UnreadablePhoto):
            yield path, *read_header(path)[:2]
