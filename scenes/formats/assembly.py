# The Capture of another program's export, from its views and points.
from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.text import format_count, format_list
from scenes.capture import LARGEST, NOT_FINITE, Capture, Lens, check_lens, check_poses
from scenes.formats.places import list_files
from scenes.formats.ply_points import is_splats, read_ply_points
from scenes.photos import find_namesakes

FEWEST_POINTS = 3  # of a cloud beside an export; fewer are those of something else


def make_points(
    xyz: list, rgb: list | None, file: Path, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """points [P, 3] float64 and colors [P, 3] float32 in [0, 1], from colours of 0 to 255.

    Points that are not finite are left out with a note; without colours they are grey, said too.
    """
    try:
        points = np.array(xyz, np.float64).reshape(len(xyz), 3)
        colors = np.full(points.shape, 127.5) if rgb is None else np.array(rgb, np.float64)
        colors = colors.reshape(len(xyz), 3)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{file} has points that are not three numbers; export it again") from None
    good = (np.abs(points) < LARGEST).all(1) & np.isfinite(colors).all(1)
    if not good.all():
        skipped = format_count(int((~good).sum()), "point")
        notes.append(f"{file.name}: skipped {skipped} {NOT_FINITE}")
    if rgb is None and len(points):
        notes.append(f"{file.name} has no colours of its points; they start grey")
    return points[good], (colors[good] / 255).clip(0, 1).astype(np.float32)


def make_capture(
    kind: str,
    file: Path,
    photos: tuple[Path, list[Path | None]],
    named: list[str],
    lens_of: Callable[[int, Path], Lens],
    viewmats: list[np.ndarray] | np.ndarray,
    points: tuple[np.ndarray, np.ndarray],
    notes: list[str],
) -> Capture:
    """The Capture of views, whose photos `match_photos` found; `named` is what the file calls them.

    lens_of: the lens of view i, whose photo is given. Views without a photo, or with the photo of
    an earlier view, are left out with a note. Raises ValueError or FileNotFoundError.
    """
    folder, paths = photos
    missing = [name for name, path in zip(named, paths, strict=True) if path is None]
    if len(missing) == len(named):
        text = f"none of the {format_count(len(named), 'photo')} of {file} is in {folder}"
        namesakes = find_namesakes(folder, missing[0]) if named else []
        if len(namesakes) > 1:
            raise ValueError(
                f"{text} under a name of its own: {missing[0]} may be any of "
                f"{format_list(namesakes, 3)}; name photos differently, or tell folders apart by "
                "groups in the export"
            )
        which = f" ({missing[0]})" if named else ""
        raise FileNotFoundError(f"{text}{which}; name their folder (--image_folder)")
    first: dict[str, int] = {}
    for i, path in enumerate(paths):
        if path is not None:
            first.setdefault(path.relative_to(folder).as_posix(), i)
    notes = list(notes)
    if missing:
        notes.append(
            f"{file.name} names {format_count(len(missing), 'photo')} not to be found "
            f"({format_list(missing, 1)}); the views are skipped"
        )
    twice = len(named) - len(missing) - len(first)
    if twice:
        notes.append(
            f"{file.name} names {format_count(twice, 'photo')} twice; the first pose is used"
        )
    names = tuple(sorted(first))
    order = [first[name] for name in names]
    poses = np.array([viewmats[i] for i in order])
    check_poses(poses, names, file)
    lenses = tuple(
        check_lens(lens_of(i, paths[i]), f"{file}: the camera of {name}")
        for name, i in zip(names, order, strict=True)
    )
    return Capture(
        kind=kind,
        photo_folder=folder,
        names=names,
        lenses=lenses,
        viewmats=poses,
        points=points[0],
        colors=points[1],
        notes=tuple(notes),
        needs_points=False,
    )


def add_points_beside(capture: Capture, file: Path, frames: list[np.ndarray]) -> Capture:
    """The capture with the points of the only .ply beside the file, if the cameras see them.

    frames: [4, 4] each, from where the points may be to the capture's world; the one in which the
    cameras see the most of them is right. All else is noted.
    """
    clouds = list_files(file.parent, "*.ply")
    splats = [cloud for cloud in clouds if is_splats(cloud)]
    if splats:
        text = f"{splats[0].name} is splats, so it is not used as points"
        capture = replace(capture, notes=(*capture.notes, text))
        clouds = [cloud for cloud in clouds if cloud not in splats]
    if len(clouds) != 1:
        text = f"{file.parent} has {len(clouds)} .ply files; leave the points' one there to use it"
        return replace(capture, notes=(*capture.notes, text)) if clouds else capture
    points, colors = read_ply_points(clouds[0])
    if len(points) < FEWEST_POINTS:
        text = f"{clouds[0].name} has only {format_count(len(points), 'point')}, so it is not used"
        return replace(capture, notes=(*capture.notes, text))
    moved = [points @ frame[:3, :3].T + frame[:3, 3] for frame in frames]
    shares = [measure_visibility(xyz, capture.viewmats, capture.lenses) for xyz in moved]
    best = int(np.argmax(shares))
    if shares[best] < 0.01:
        text = f"the cameras see hardly any point of {clouds[0].name}, so it is not used"
        return replace(capture, notes=(*capture.notes, text))
    return replace(capture, points=moved[best], colors=colors)


def measure_visibility(points: np.ndarray, viewmats: np.ndarray, lenses: Iterable[Lens]) -> float:
    """The mean share of points that lie in front of a camera and inside its photo."""
    points = points[:: max(1, len(points) // 2000)].astype(np.float64)
    shares = []
    for viewmat, lens in zip(viewmats, lenses, strict=True):
        x, y, z = viewmat[:3, :3] @ points.T + viewmat[:3, 3:]
        in_front = z > 1e-6
        z = np.where(in_front, z, 1)
        u = lens.K[0, 0] * x / z + lens.K[0, 2]
        v = lens.K[1, 1] * y / z + lens.K[1, 2]
        inside = (u > 0) & (u < lens.width) & (v > 0) & (v < lens.height)
        shares.append((in_front & inside).mean() if len(points) else 0.0)
    return float(np.mean(shares))
