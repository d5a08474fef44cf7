# Agisoft Metashape's cameras.xml (File > Export > Export Cameras).
# Camera models: appendix "Camera models" of the Metashape manual. Frames and pixel centres:
# export_for_gaussian_splatting.py of https://github.com/agisoft-llc/metashape-scripts
from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from runtime.text import format_count
from scenes.capture import Capture, Lens, make_no_points
from scenes.formats.assembly import add_points_beside, make_capture
from scenes.formats.conversions import (
    invert_pose,
    make_lens,
    make_panorama,
    make_pose,
    read_number,
    read_numbers,
    read_rotation,
    read_text,
)
from scenes.formats.photo_names import match_photos, photo_folders
from scenes.formats.places import count_matches, list_files, read_start

count_views = count_matches(rb"<camera [^>]*[^/>]>\s*<transform")


def find(folder: Path) -> list[Path]:
    """The cameras.xml of a folder, and others with Metashape's chunks."""
    return [
        file
        for file in list_files(folder, "cameras.xml", "*.xml")
        if file.name.lower() == "cameras.xml" or _has_chunks(file)
    ]


def _has_chunks(file: Path) -> bool:
    head = read_start(file, 4096).replace(b"\0", b"")  # UTF-16 of ASCII has zeros between
    return b"<document" in head and b"<chunk" in head


@dataclass(frozen=True)
class Similarity:
    """x -> scale * R x + t, of a component or a chunk."""

    scale: float
    R: np.ndarray
    t: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """[4, 4]."""
        return make_pose(self.scale * self.R, self.t)


IDENTITY = Similarity(1.0, np.eye(3), np.zeros(3))


def read(file: Path, path: Path, photos: Path | None) -> Capture:
    """The aligned cameras of a cameras.xml, in its world (of a georeferenced project: geocentric).

    Camera to chunk with OpenCV's axes, then the component's scale, rotation and translation.
    Points are read from a .ply beside the file, in either frame. Raises ValueError or
    FileNotFoundError.
    """
    chunk, notes = _chunk(file)
    sensors = {sensor.get("id"): sensor for sensor in chunk.iter("sensor")}
    aligned, disabled = [], 0
    for camera in chunk.iter("camera"):
        if camera.find("transform") is None:
            continue
        if str(camera.get("enabled", "true")).lower() in ("false", "0"):
            disabled += 1
        else:
            aligned.append(camera)
    if not aligned:
        raise ValueError(f"{file} has no aligned camera; align the photos and export it again")
    if disabled:
        notes.append(f"{file.name}: skipped {format_count(disabled, 'disabled photo')}")
    if any((shutter.text or "").strip() for shutter in chunk.iter("rolling_shutter")):
        notes.append(f"{file.name}: the rolling shutter of its cameras is ignored")

    notes += _ignored(sensors.values(), file)

    frames = {part.get("id"): _transform(part, file) for part in chunk.iter("component")}
    whole = _transform(chunk, file)
    counts = Counter(camera.get("component_id") for camera in aligned)
    if len(counts) > 1 and None in (frames.get(key, whole) for key in counts):
        largest = counts.most_common(1)[0][0]
        skipped = format_count(len(aligned) - counts[largest], "photo")
        other = next(c for c in aligned if c.get("component_id") != largest)
        notes.append(
            f"{file.name}: skipped {skipped} of other components than the largest ({_label(other)})"
        )
        aligned = [camera for camera in aligned if camera.get("component_id") == largest]

    viewmats, used = [], IDENTITY
    for camera in aligned:
        what = f"{file}: the pose of {_label(camera)}"
        pose = read_numbers((camera.findtext("transform") or "").split(), 16, what).reshape(4, 4)
        used = frames.get(camera.get("component_id"), whole) or whole or IDENTITY
        R = used.R @ read_rotation(pose[:3, :3], what)
        viewmats.append(invert_pose(make_pose(R, used.scale * used.R @ pose[:3, 3] + used.t)))

    def lens_of(i: int, photo: Path) -> Lens:
        key = aligned[i].get("sensor_id")
        if key not in sensors:
            raise ValueError(f"{file}: {_label(aligned[i])} has no sensor; export it again")
        return _lens(sensors[key], f"{file}: the sensor {key[:20]}")

    groups = {
        camera: f"{group.get('label')}/"
        for group in chunk.iter("group")
        for camera in group.iter("camera")
    }
    # Labels may repeat in groups, which are often the photos' folders.
    named = [groups.get(camera, "") + _label(camera) for camera in aligned]
    matched = match_photos(named, photo_folders(file, path, photos))
    capture = make_capture(
        "Metashape", file, matched, named, lens_of, viewmats, make_no_points(), notes
    )
    return add_points_beside(capture, file, [np.eye(4), used.matrix])


def _chunk(file: Path) -> tuple[Element, list[str]]:
    """The chunk with the most aligned cameras, and a note if there are others."""
    text = read_text(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{file} declares a document type, which no export of Metashape does")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        reason = str(error).splitlines()[0][:100]
        raise ValueError(f"{file} is not valid XML ({reason}); export it again") from None
    chunks = sorted(
        root.iter("chunk"), key=lambda chunk: -len(chunk.findall(".//camera/transform"))
    )
    if not chunks:
        raise ValueError(
            f"{file} is no export of Metashape: it has no chunk; export the cameras again, or "
            "remove it to have the poses computed"
        )
    if len(chunks) == 1:
        return chunks[0], []
    label = chunks[0].get("label", "")[:40]
    return chunks[0], [
        f"{file.name} has {len(chunks)} chunks; the one of most cameras is read: {label}"
    ]


def _label(camera: Element) -> str:
    return camera.get("label") or f"camera {camera.get('id')}"


def _transform(part: Element, file: Path) -> Similarity | None:
    transform = part.find("transform")
    if transform is None or transform.find("rotation") is None:
        return None
    what = f"{file}: the transform of {part.get('label', 'a chunk')[:40]}"
    rotation = read_numbers((transform.findtext("rotation") or "").split(), 9, what)
    scale = read_number(transform.findtext("scale") or "1", what)
    if not scale > 0:
        raise ValueError(f"{what} has the scale {scale:g}; export it again")
    translation = (transform.findtext("translation") or "0 0 0").split()
    R = read_rotation(rotation.reshape(3, 3), what)
    return Similarity(scale, R, read_numbers(translation, 3, what))


def _calibration(sensor: Element) -> Element:
    """The adjusted calibration of a sensor, else another one, else the sensor."""
    calibrations = sensor.findall("calibration")
    return min(calibrations, key=lambda one: one.get("class") != "adjusted", default=sensor)


def _lens(sensor: Element, what: str) -> Lens:
    kind = sensor.get("type", "frame")
    calibration = _calibration(sensor)

    def number(key: str) -> float:
        return read_number(calibration.findtext(key) or "0", f"{what}: {key}")

    resolution = calibration.find("resolution")
    resolution = sensor.find("resolution") if resolution is None else resolution
    if resolution is None:
        raise ValueError(f"{what} has no resolution; export it again")
    width, height = (
        read_number(resolution.get(key), f"{what}: its {key}") for key in ("width", "height")
    )
    if kind == "spherical":
        return make_panorama(width, height, what)
    if kind not in ("frame", "fisheye"):
        raise ValueError(
            f"{what} is of the type {kind[:40]}, which is not supported; export undistorted photos"
        )
    if calibration.find("f") is None:
        raise ValueError(f"{what} has no calibration with f; align the photos and export it again")
    f, k1, k2, k3, k4 = (number(key) for key in ("f", "k1", "k2", "k3", "k4"))
    p1, p2 = number("p2"), number("p1")  # OpenCV's order is the other way round
    fisheye = kind == "fisheye"
    return make_lens(
        (width, height),
        (f + number("b1"), f),
        (width / 2 + number("cx"), height / 2 + number("cy")),
        (k1, k2, k3, k4) if fisheye else (k1, k2, p1, p2, k3, k4),
        fisheye,
        skew=number("b2"),
    )


def _ignored(sensors: Iterable[Element], file: Path) -> list[str]:
    """Notes on what of the sensors a Lens cannot hold."""
    decentred = any(
        sensor.get("type") == "fisheye"
        and any(_calibration(sensor).findtext(key) for key in ("p1", "p2"))
        for sensor in sensors
    )
    text = f"{file.name}: the terms p1 and p2 of its fisheye lenses are ignored"
    return [text] if decentred else []
