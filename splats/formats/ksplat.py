# Splats as .ksplat files, those of mkkellogg's GaussianSplats3D (`SplatBuffer`, version 0.1): a
# header of 4,096 bytes, headers of 1,024 bytes for sections, then each section's buckets and
# records. A record is centre, linear scales, rotation (w, x, y, z), colour and opacity in bytes,
# and harmonics, each degree channel-major. Only read: GaussForge 0.6.0 mixes up the harmonics of
# these files, and the positions where they are compressed.
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from splats.formats.finite import build
from splats.gaussians import SH_C0, Splats

HEADER, SECTION_HEADER = 4096, 1024  # bytes
RECORD_TYPES = (  # of centre and scale and rotation, and of harmonics, by compression level
    ("<f4", "<f4", "<f4", 1),
    ("<u2", "<f2", "<f2", 32767),
    ("<u2", "<f2", "u1", 32767),
)
REST = (0, 3, 8, 15)  # coefficients of each channel


@dataclass(frozen=True)
class Section:
    """Where a section's parts are in the file, in bytes, and how its centres are quantised."""

    count: int
    degree: int
    block: float  # edge of a bucket's cube, in world units
    quantum_range: int
    bucket_size: int
    full_buckets: int
    partial_buckets: int
    bucket_count: int
    start: int  # of the numbers of records in partial buckets, then the buckets' centres
    data: int
    end: int
    record: np.dtype


def read(path: Path | str) -> Splats:
    """Splats of a .ksplat; ValueError names the file and what is wrong."""
    path = Path(path)
    content = path.read_bytes()
    if len(content) < HEADER or content[0] != 0 or content[1] < 1:
        raise ValueError(f"{path} is not a .ksplat of version 0.1; export it again")
    words = np.frombuffer(content, "<u4", HEADER // 4)
    level = int(np.frombuffer(content, "<u2", 1, 20)[0])
    if level >= len(RECORD_TYPES):
        raise ValueError(f"{path} has compression level {level}; levels 0, 1 and 2 are read")
    bounds = np.frombuffer(content, "<f4", 2, 36)
    low, high = (float(b or half) for b, half in zip(bounds, (-1.5, 1.5), strict=True))

    parts, at = [], HEADER + int(words[1]) * SECTION_HEADER
    for i in range(int(words[1])):
        section = _read_section(path, content, HEADER + i * SECTION_HEADER, at, level)
        if section.count:
            parts.append(_read_records(path, content, section, (low, high)))
        at = section.end
    if not parts:
        raise ValueError(f"{path} has no Gaussians; it holds an empty scene")
    K = max(part["shN"].shape[1] for part in parts)
    for part in parts:
        part["shN"] = np.pad(part["shN"], ((0, 0), (0, K - part["shN"].shape[1]), (0, 0)))
    names = parts[0]
    return build(path, {n: torch.from_numpy(np.concatenate([p[n] for p in parts])) for n in names})


def _read_section(path: Path, content: bytes, header: int, start: int, level: int) -> Section:
    """The section whose header and storage begin at these bytes; ValueError if it does not fit."""
    if header + SECTION_HEADER > len(content):
        raise ValueError(f"{path} is truncated: it ends in its headers; copy or export it again")
    words = np.frombuffer(content, "<u4", 10, header).tolist()
    count, capacity, bucket_size, bucket_count = words[:4]
    full, partial = words[8:10]
    degree = int(np.frombuffer(content, "<u2", 1, header + 40)[0])
    if degree >= len(REST):
        raise ValueError(f"{path} has harmonics of degree {degree}; degrees 0 to 3 are read")
    center, value, rest, quantum_range = RECORD_TYPES[level]
    record = np.dtype(
        [
            ("center", center, 3),
            ("scale", value, 3),
            ("rotation", value, 4),
            ("color", "u1", 4),
            ("rest", rest, 3 * REST[degree]),
        ]
    )
    bucket_bytes = int(np.frombuffer(content, "<u2", 1, header + 20)[0])
    data = start + 4 * partial + bucket_bytes * bucket_count
    section = Section(
        count=count,
        degree=degree,
        block=float(np.frombuffer(content, "<f4", 1, header + 16)[0]),
        quantum_range=words[6] or quantum_range,
        bucket_size=bucket_size,
        full_buckets=full,
        partial_buckets=partial,
        bucket_count=bucket_count,
        start=start,
        data=data,
        end=data + record.itemsize * capacity,
        record=record,
    )
    if data + record.itemsize * count > len(content):
        raise ValueError(
            f"{path} is truncated: its headers promise {count:,} Gaussians in a section that ends "
            "with the file; copy or export it again"
        )
    return section


def _read_records(
    path: Path, content: bytes, section: Section, bounds: tuple[float, float]
) -> dict[str, np.ndarray]:
    """A section's values by the names of `Splats`; bounds: of harmonics in one byte."""
    n, K = section.count, REST[section.degree]
    rows = np.frombuffer(content, section.record, n, section.data)
    means = rows["center"].astype(np.float32)
    if section.record["center"].base == np.dtype("<u2"):
        factor = section.block / 2 / section.quantum_range
        means = (means - section.quantum_range) * np.float32(factor)
        means += _bucket_centers(path, content, section)
    rest = rows["rest"].astype(np.float32)
    if section.record["rest"].base == np.dtype("u1"):
        rest = rest / 255 * (bounds[1] - bounds[0]) + bounds[0]
    ends = [(a, b) for a, b in pairwise(REST) if b <= K]
    bands = [rest[:, 3 * a : 3 * b].reshape(n, 3, b - a) for a, b in ends]
    shN = np.concatenate([*bands, np.zeros((n, 3, 0), np.float32)], axis=2).transpose(0, 2, 1)
    color = rows["color"].astype(np.float32) / 255
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "means": means,
            "scales": np.log(rows["scale"].astype(np.float32)),
            "quats": rows["rotation"].astype(np.float32),
            "opacities": np.log(color[:, 3]) - np.log1p(-color[:, 3]),
            "sh0": (color[:, None, :3] - 0.5) / np.float32(SH_C0),
            "shN": np.ascontiguousarray(shN, np.float32),
        }


def _bucket_centers(path: Path, content: bytes, section: Section) -> np.ndarray:
    """float32 [count, 3], the centre of the bucket in which each record is."""
    first = section.start + 4 * section.partial_buckets
    stride = (section.data - first) // max(1, section.bucket_count)
    if stride < 12 or section.full_buckets > section.bucket_count:
        raise ValueError(f"{path} is damaged: its buckets have no centres; export it again")
    partial = np.frombuffer(content, "<u4", section.partial_buckets, section.start)
    full = np.full(section.full_buckets, section.bucket_size, np.int64)
    ends = np.cumsum(np.concatenate([full, partial.astype(np.int64)]))
    buckets = np.searchsorted(ends, np.arange(section.count), side="right")
    if buckets.max() >= section.bucket_count:
        raise ValueError(f"{path} is damaged: its buckets hold too few Gaussians; export it again")
    centers = np.frombuffer(content, "u1", stride * section.bucket_count, first)
    centers = centers.reshape(section.bucket_count, stride)[:, :12]
    return np.ascontiguousarray(centers).view("<f4")[buckets]
