# Point clouds in .ply files: positions and, if present, colours.
from __future__ import annotations

from pathlib import Path

import numpy as np
from plyfile import PlyData

from scenes.capture import LARGEST
from scenes.formats.places import read_start


def read_ply_points(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """points [P, 3] float64 and colors [P, 3] float32 in [0, 1] (grey if the file has none).

    Points that are not finite are dropped. Raises ValueError if the file is no point cloud.
    """
    try:
        _check_counts(file)
        with np.errstate(over="ignore"):  # infinite values are dropped below
            vertex = PlyData.read(file)["vertex"]
        points = np.stack([np.asarray(vertex[axis], np.float64) for axis in "xyz"], 1)
        names = vertex.data.dtype.names
        colors = np.full(points.shape, 0.5, np.float32)
        if {"red", "green", "blue"} <= set(names):
            channels = [np.asarray(vertex[name]) for name in ("red", "green", "blue")]
            scale = 255 if channels[0].dtype.kind in "ui" else 1
            colors = np.stack(channels, 1).astype(np.float32) / scale
    except Exception as error:  # plyfile raises many kinds on damaged files
        reason = (str(error) or "it holds no vertices with x, y and z").splitlines()[0]
        raise ValueError(f"{file} is not a readable point cloud ({reason})") from None
    finite = (np.abs(points) < LARGEST).all(1) & np.isfinite(colors).all(1)
    return points[finite], colors[finite].clip(0, 1)


def is_splats(file: Path) -> bool:
    """Whether a .ply has the properties of Gaussian splats."""
    header = read_start(file, 65536).split(b"end_header")[0]
    return b" f_dc_0" in header or b" scale_0" in header or b"packed_scale" in header


def _check_counts(file: Path) -> None:
    """Raise ValueError if an element has more rows than the file has bytes, before allocating."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        header = stream.read(65536).split(b"end_header")[0]
    for line in header.splitlines():
        fields = line.split()
        if fields[:1] == [b"element"] and (len(fields) != 3 or not 0 <= int(fields[2]) <= size):
            raise ValueError("its header counts more points than the file holds")
