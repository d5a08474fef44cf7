# Splats as .ply files in the layout of Inria's 3D Gaussian Splatting (Kerbl et al. 2023):
# x y z [nx ny nz] f_dc_0..2 f_rest_* opacity scale_0..2 rot_0..3, raw values, f_rest
# channel-major (all of red's coefficients, then green's, then blue's). Relatives of it are read as
# well: 2D Gaussian Splatting (Huang et al. 2024) has no scale_2, Mip-Splatting (Yu et al. 2024)
# adds filter_3D, and nerfstudio can write red, green and blue in place of f_dc.
from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from runtime.files import atomic_path
from splats.formats.finite import THICKNESS, THIN, build
from splats.gaussians import NAMES, SH_C0, Splats

log = logging.getLogger(__name__)

REST_COUNTS = (0, 9, 24, 45)  # of f_rest for SH degrees 0 to 3
RGB = ("red", "green", "blue")
LARGEST_RGB = 1.5  # of floats to 1
NORMALS = ("nx", "ny", "nz")
FILTER = "filter_3D"
HEADER_LIMIT = 1 << 20  # bytes; a header of splats has about 1,500
TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class Element:
    """One table of a .ply: its rows and the (name, numpy type) of each column."""

    name: str
    count: int
    properties: tuple[tuple[str, str], ...]


def property_names(rest: int, normals: bool = True) -> list[str]:
    """Column names, in the order in which they are written, with `rest` f_rest columns."""
    return [
        *"xyz",
        *(NORMALS if normals else ()),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write(
    path: Path | str, splats: Splats, *, normals: bool = True, name: Path | str | None = None
) -> None:
    """Write splats as binary little-endian float32, atomically; signals are not written.

    The normals are zeros that viewers with a fixed layout expect; without them the bytes are those
    of `gsplat.export_splats(format="ply")`. ValueError, naming the file (or `name`), for values
    that are not finite.
    """
    n = splats.count
    values = {name: splats[name].detach().cpu().float() for name in NAMES}
    parts = [
        values["means"],
        *([torch.zeros(n, 3)] if normals else []),
        values["sh0"].reshape(n, 3),
        values["shN"].transpose(1, 2).reshape(n, -1),
        values["opacities"][:, None],
        values["scales"],
        values["quats"],
    ]
    table = torch.cat(parts, dim=1).numpy()
    _check_finite(name or path, table, "cannot be written; stop the optimisation earlier")
    columns = property_names(3 * values["shN"].shape[1], normals)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {n}"]
    header += [f"property float {column}" for column in columns] + ["end_header", ""]
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode())
        table.astype("<f4", copy=False).tofile(file)


def read(path: Path | str, *, name: Path | str | None = None) -> Splats:
    """Splats of SH degree 0 to 3 from an ascii or binary file, with columns in any order and type.

    Columns that splats do not have are ignored. Without scale_2 Gaussians are 1e-6 thick; red,
    green and blue, of integers or floats to 1 or 255, become harmonics of degree 0; filter_3D is
    fused as Mip-Splatting's authors do. The log says which of these happened.
    Values that are not finite: `splats.formats.finite.build`. ValueError names the file (or `name`)
    and what is wrong: not a .ply, not splats, truncated, no Gaussians.
    """
    path, name = Path(path), Path(name or path)
    with path.open("rb") as file:
        layout, elements = _read_header(name, file)
        names, vertex = _splat_columns(name, elements)
        left = path.stat().st_size - file.tell()
        table = _read_table(name, file, left, layout, elements, vertex, names)
    ignored = [column for column, _ in vertex.properties if column not in {*names, *NORMALS}]
    if ignored:
        shown = ", ".join(ignored[:6]) + (", ..." if len(ignored) > 6 else "")
        log.info("%s: columns that splats do not have are ignored: %s", name, shown)
    kinds = dict(vertex.properties)
    return build(name, _split_columns(name, torch.from_numpy(table), names, kinds))


def is_compressed(path: Path | str) -> bool:
    """Whether the header is that of SuperSplat's compressed .ply; ValueError as `read`."""
    path = Path(path)
    with path.open("rb") as file:
        _, elements = _read_header(path, file)
    return any(name == "packed_position" for e in elements for name, _ in e.properties)


def _split_columns(
    path: Path, table: torch.Tensor, names: list[str], kinds: dict[str, str]
) -> dict[str, torch.Tensor]:
    """The columns of the table by the names of `Splats`; kinds: of the columns in the file."""
    n = len(table)
    rest = sum(name.startswith("f_rest_") for name in names)
    thickness = sum(name.startswith("scale_") for name in names)
    sizes = [3, 3, rest, 1, thickness, 4, int(FILTER in names)]
    means, colors, rest, opacities, scales, quats, smoothing = table.split(sizes, dim=1)
    opacities = opacities[:, 0]
    if RGB[0] in names:
        whole = {"u1": 255, "u2": 65535}.get(kinds[RGB[0]], 1)
        if whole == 1 and n and colors.nan_to_num().max() > LARGEST_RGB:
            whole = 255
            log.info("%s: its red, green and blue reach beyond 1; they are divided by 255", path)
        colors = (colors / whole - 0.5) / SH_C0
    if thickness == 2:
        scales = torch.cat([scales, torch.full((n, 1), THIN)], dim=1)
        log.info("%s: these are 2D Gaussians; they become %s thick", path, THICKNESS)
    if FILTER in names:
        scales, opacities = _fuse_filter(scales, opacities, smoothing)
        log.info("%s: its 3D filter (%s) is fused with scales and opacities", path, FILTER)
    return {
        "means": means.contiguous(),
        "scales": scales.contiguous(),
        "quats": quats.contiguous(),
        "opacities": opacities.contiguous(),
        "sh0": colors[:, None].contiguous(),
        "shN": rest.reshape(n, 3, -1).transpose(1, 2).contiguous(),
    }


def _fuse_filter(
    scales: torch.Tensor, opacities: torch.Tensor, smoothing: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log scales [N,3] and logits [N] with the 3D filter [N,1] in them: Gaussians are convolved
    with it, and fainter as they are larger (`save_fused_ply` in mip-splatting)."""
    squares, added = (2 * scales.double()).exp(), smoothing.double().square()
    total = squares + added
    dimming = (0.5 * (2 * scales.double() - total.log()).sum(1)).exp()
    return (0.5 * total.log()).float(), torch.logit(opacities.double().sigmoid() * dimming).float()


def _read_header(path: Path, file: BinaryIO) -> tuple[str, list[Element]]:
    """The layout and the elements; leaves `file` at the first byte of the data."""
    head = file.read(HEADER_LIMIT)
    if not head.startswith((b"ply\n", b"ply\r")):
        raise ValueError(f"{path} is not a .ply file (it does not start with 'ply')")
    marker = head.find(b"end_header")
    end = head.find(b"\n", marker) + 1
    if (marker < 0 or end == 0) and len(head) == HEADER_LIMIT:
        raise ValueError(
            f"{path} has a .ply header of more than {HEADER_LIMIT:,} bytes; export it without "
            "comments"
        )
    if marker < 0 or end == 0:
        raise ValueError(f"{path} is truncated: the .ply header has no end; export it again")
    layout, elements = "", []
    for line in head[:marker].decode("ascii", "replace").splitlines()[1:]:
        match line.split():
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", name, "1.0"] if name in BYTE_ORDERS:
                layout = name
            case ["element", name, count] if count.isdecimal() and len(count) < 19:
                elements.append(Element(name, int(count), ()))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1] = _with_property(path, elements[-1], name, TYPES[kind])
            case ["property", "list", _, _, name] if elements:
                elements[-1] = _with_property(path, elements[-1], name, "list")
            case _:
                raise ValueError(
                    f"{path} has a damaged .ply header: cannot read the line {line[:80]!r}"
                )
    if not layout:
        raise ValueError(f"{path} has a damaged .ply header: no line says its format")
    file.seek(end)
    return layout, elements


def _with_property(path: Path, element: Element, name: str, kind: str) -> Element:
    if any(name == other for other, _ in element.properties):
        raise ValueError(f"{path} has a damaged .ply header: property {name} appears twice")
    return Element(element.name, element.count, (*element.properties, (name, kind)))


def _splat_columns(path: Path, elements: list[Element]) -> tuple[list[str], Element]:
    """The columns to read, in the order of `property_names`, and the element that has them."""
    vertex = next((element for element in elements if element.name == "vertex"), None)
    if vertex is None:
        raise ValueError(f"{path} is not a .ply of splats: it has no vertices")
    present = dict(vertex.properties)
    rest = sum(name.startswith("f_rest_") for name in present)
    names = property_names(rest, normals=False)
    if "f_dc_0" not in present and all(name in present for name in RGB):
        names[3:6] = RGB
    if "scale_2" not in present and "scale_1" in present:
        names.remove("scale_2")
    missing = [name for name in names if name not in present]
    if missing:
        text = ", ".join(missing[:6]) + (", ..." if len(missing) > 6 else "")
        if len(missing) < 3:  # splats, all but these
            raise ValueError(
                f"{path} has no {text}, which splats need; export it again with all columns"
            )
        raise ValueError(
            f"{path} is a point cloud or mesh, not splats: it has no {text}; "
            "give a .ply that 3D Gaussian Splatting wrote"
        )
    if rest not in REST_COUNTS:
        degree = {72: " (degree 4)"}.get(rest, "")
        raise ValueError(
            f"{path} has {rest} f_rest properties{degree}; SH degrees 0 to 3 have "
            + ", ".join(map(str, REST_COUNTS))
            + "; export it with harmonics of degree 3 or less"
        )
    if FILTER in present:
        names.append(FILTER)
    before = elements[: elements.index(vertex) + 1]
    if any(kind == "list" for element in before for _, kind in element.properties):
        raise ValueError(f"{path} is not a .ply of splats: it has lists in or before its vertices")
    if vertex.count == 0:
        raise ValueError(f"{path} has no Gaussians; it holds an empty scene")
    return names, vertex


def _read_table(
    path: Path,
    file: BinaryIO,
    left: int,
    layout: str,
    elements: list[Element],
    vertex: Element,
    names: list[str],
) -> np.ndarray:
    """float32 [N, len(names)] of the vertex element, whose columns are read in any type; `left` is
    the number of bytes after the header."""
    start = file.tell()
    before = elements[: elements.index(vertex)]
    order = BYTE_ORDERS[layout]
    types = {
        element.name: np.dtype([(name, order + kind) for name, kind in element.properties])
        for element in (*before, vertex)
    }
    # The header may be wrong: compare it with the file's size before allocating memory.
    if layout == "ascii":
        least = sum(2 * e.count * len(e.properties) for e in (*before, vertex)) - 1
    else:
        least = sum(e.count * types[e.name].itemsize for e in (*before, vertex))
    if least > left:
        raise ValueError(
            f"{path} is truncated: its header promises {vertex.count:,} Gaussians, "
            f"but the data has only {left:,} bytes; copy or export it again"
        )
    if layout == "ascii":
        rows = _read_ascii(path, file, sum(e.count for e in before), vertex)
        return rows[:, [[p for p, _ in vertex.properties].index(name) for name in names]]

    file.seek(start + sum(e.count * types[e.name].itemsize for e in before))
    dtype = types["vertex"]
    rows = np.fromfile(file, dtype=dtype, count=vertex.count)
    if all(kind == "f4" for _, kind in vertex.properties):  # the usual case, several times faster
        table = rows.view(order + "f4").reshape(vertex.count, -1)
        columns = np.array([dtype.names.index(name) for name in names])
        runs = np.split(columns, np.flatnonzero(np.diff(columns) != 1) + 1)
        table = np.concatenate([table[:, run[0] : run[-1] + 1] for run in runs], axis=1)
        return np.asarray(table, dtype=np.float32)
    table = np.empty((vertex.count, len(names)), np.float32)
    with np.errstate(over="ignore"):  # doubles beyond float32 become infinite and are reported
        for i, name in enumerate(names):
            table[:, i] = rows[name]
    return table


def _read_ascii(path: Path, file: BinaryIO, skip: int, vertex: Element) -> np.ndarray:
    """float32 [N, properties] from one line per vertex, after `skip` lines of other elements."""
    try:
        with np.errstate(over="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about empty lines
            rows = np.loadtxt(
                file,
                np.float32,
                comments=None,
                skiprows=skip,
                max_rows=vertex.count,
                ndmin=2,
                encoding="ascii",
            )
    except ValueError as error:
        raise ValueError(f"{path} has damaged ascii values: {error}") from error
    if rows.shape != (vertex.count, len(vertex.properties)):
        raise ValueError(
            f"{path} is truncated or damaged: its header promises {vertex.count:,} rows of "
            f"{len(vertex.properties)} values, it has {rows.shape[0]:,} of {rows.shape[1]}"
        )
    return rows


def _check_finite(path: Path | str, table: np.ndarray, advice: str) -> None:
    with np.errstate(invalid="ignore"):
        total = table.sum(dtype=np.float64)
    if np.isfinite(total):  # any NaN or infinity would make it one
        return
    bad = ~np.isfinite(table)
    raise ValueError(
        f"{path}: {int(bad.any(1).sum()):,} of {len(table):,} Gaussians have NaN or infinite "
        f"values ({int(bad.sum()):,} values) and {advice}"
    )
