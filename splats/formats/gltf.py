# Splats as glTF with the extension KHR_gaussian_splatting, .glb or .gltf: points with linear
# scales, opacities in [0, 1], rotations (x, y, z, w) and harmonics as attributes. glTF is y-up and
# splats are y-down: as PlayCanvas's splat-transform does, the world is turned by 180 degrees about
# z on the way in and out.
from __future__ import annotations

import base64
import binascii
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import torch

from runtime.files import write_bytes
from splats.formats.finite import build, fill_rotations
from splats.gaussians import Gaussians, Splats
from splats.transform import transform

NAME = "KHR_gaussian_splatting"
TURN = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64))
TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
# what is read of the extensions that a file requires; integers are taken as they are or normalised
EXTENSIONS = (NAME, "KHR_mesh_quantization")
COLOR_SPACE = "srgb_rec709_display"  # of two in the specification; the other is linear
POINTS = 0  # the mode of primitives that the specification demands
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
BAND_SIZES = (1, 3, 5, 7)  # coefficients of degrees 0 to 3
JSON_CHUNK, DATA_CHUNK = 0x4E4F534A, 0x004E4942


def read(path: Path | str) -> Splats:
    """Splats of all primitives with the extension, where the nodes of the scene put them.

    ValueError names the file and what is wrong: not glTF, no splats, compressed by a further
    extension, linear colours, not points, a node that shears or mirrors.
    """
    path = Path(path)
    try:
        content, data = _open(path)
        parts = []
        for matrix, primitive in _find_primitives(path, content):
            values = _read_primitive(path, content, data, primitive)
            splats = build(path, values)
            try:
                parts.append(transform(splats.gaussians.detach(), TURN @ matrix))
            except ValueError as error:
                raise ValueError(f"{path}: a node cannot be applied to splats; {error}") from error
    except (
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise ValueError(
            f"{path} is a damaged glTF file ({repr(error)[:200]}); export it again"
        ) from error
    if not parts:
        raise ValueError(f"{path} is glTF without splats: no primitive has {NAME}")
    return Splats.from_gaussians(Gaussians.concatenate(parts))


def write(path: Path | str, splats: Splats) -> None:
    """Write splats as a .glb of float32 values, atomically; ValueError for non-finite ones."""
    gaussians = transform(splats.gaussians.detach().to("cpu").to(torch.float32), TURN)
    quats = torch.nn.functional.normalize(fill_rotations(path, gaussians.quats), dim=1)
    attributes = {
        "POSITION": gaussians.means,
        f"{NAME}:ROTATION": quats.roll(-1, dims=1),
        f"{NAME}:SCALE": gaussians.scales.exp(),
        f"{NAME}:OPACITY": gaussians.opacities.sigmoid(),
    }
    names = _harmonic_names(gaussians.sh_degree)
    attributes |= dict(zip(names, gaussians.colors.unbind(1), strict=True))
    if not all(value.isfinite().all() for value in attributes.values()):
        raise ValueError(
            f"{path}: some Gaussians have NaN or infinite values; they are not written"
        )

    buffers = [value.contiguous().numpy().astype("<f4").tobytes() for value in attributes.values()]
    starts = np.cumsum([0, *map(len, buffers)]).tolist()
    means = gaussians.means
    content = {
        "asset": {"version": "2.0"},
        "extensionsUsed": [NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{
            "mode": 0,
            "attributes": {name: i for i, name in enumerate(attributes)},
            "extensions": {NAME: {"kernel": "ellipse", "colorSpace": COLOR_SPACE}},
        }]}],
        "buffers": [{"byteLength": starts[-1]}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": len(buffer)}
            for start, buffer in zip(starts, buffers, strict=False)
        ],
        "accessors": [
            {"bufferView": i, "componentType": 5126, "count": len(value),
             "type": "SCALAR" if value.ndim == 1 else f"VEC{value.shape[1]}"}
            for i, value in enumerate(attributes.values())
        ],
    }  # fmt: skip
    content["accessors"][0] |= {"min": means.amin(0).tolist(), "max": means.amax(0).tolist()}
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text
    chunks += struct.pack("<II", starts[-1], DATA_CHUNK) + b"".join(buffers)
    write_bytes(Path(path), struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def _harmonic_names(degree: int) -> list[str]:
    return [
        f"{NAME}:SH_DEGREE_{band}_COEF_{i}"
        for band in range(degree + 1)
        for i in range(BAND_SIZES[band])
    ]


def _open(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a .glb or .gltf, and the binary chunk of the former."""
    content = path.read_bytes()
    data = b""
    if content[:4] == b"glTF":
        chunks, at = {}, 12
        while at + 8 <= len(content):
            size, kind = struct.unpack_from("<II", content, at)
            if at + 8 + size > len(content):
                raise ValueError(f"{path} is truncated; copy or export it again")
            chunks.setdefault(kind, content[at + 8 : at + 8 + size])
            at += 8 + size
        content, data = chunks.get(JSON_CHUNK, b""), chunks.get(DATA_CHUNK, b"")
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not glTF: its JSON cannot be read") from error
    if not isinstance(parsed, dict) or "asset" not in parsed:
        raise ValueError(f"{path} is not glTF: its JSON has no 'asset'")
    return parsed, data


def _find_primitives(
    path: Path, content: dict[str, Any]
) -> list[tuple[torch.Tensor, dict[str, Any]]]:
    """(node to world [4,4], primitive) of each primitive with splats in the file's scene."""
    nodes, meshes = content.get("nodes", []), content.get("meshes", [])
    scenes = content.get("scenes") or [{"nodes": range(len(nodes))}]
    waiting = [
        (i, torch.eye(4, dtype=torch.float64)) for i in scenes[content.get("scene", 0)]["nodes"]
    ]
    primitives: list[tuple[torch.Tensor, dict[str, Any]]] = []
    seen: set[int] = set()
    while waiting:
        i, parent = waiting.pop(0)
        if i in seen:
            raise ValueError(f"{path} is a damaged glTF file: node {i} has two parents")
        seen.add(i)
        matrix = parent @ _node_matrix(nodes[i])
        waiting += [(child, matrix) for child in nodes[i].get("children", [])]
        for primitive in meshes[nodes[i]["mesh"]]["primitives"] if "mesh" in nodes[i] else []:
            extension = primitive.get("extensions", {}).get(NAME)
            if extension is None:
                continue
            if extension.get("extensions"):
                further = ", ".join(extension["extensions"])
                raise ValueError(f"{path} is compressed by {further}; export it without")
            kernel = extension.get("kernel", "ellipse")
            if kernel != "ellipse":
                raise ValueError(f"{path} has Gaussians of the kernel {kernel!r}; ellipse is read")
            color_space = extension.get("colorSpace", COLOR_SPACE)
            if color_space != COLOR_SPACE:
                raise ValueError(
                    f"{path} has colours of the space {color_space!r}; export it in {COLOR_SPACE}"
                )
            mode = primitive.get("mode", 4)  # triangles, where there is none
            if mode != POINTS:
                raise ValueError(
                    f"{path} has splats in a primitive of mode {mode}; they are points, mode 0: "
                    "export it again"
                )
            primitives.append((matrix, primitive))
    unknown = [name for name in content.get("extensionsRequired", []) if name not in EXTENSIONS]
    if unknown and primitives:
        raise ValueError(
            f"{path} requires {', '.join(map(str, unknown))}, which is not read; export it without"
        )
    return primitives


def _node_matrix(node: dict[str, Any]) -> torch.Tensor:
    from scipy.spatial.transform import Rotation

    matrix = torch.eye(4, dtype=torch.float64)
    if "matrix" in node:
        return torch.tensor(node["matrix"], dtype=torch.float64).reshape(4, 4).T
    R = torch.from_numpy(Rotation.from_quat(node.get("rotation", [0, 0, 0, 1])).as_matrix())
    matrix[:3, :3] = R * torch.tensor(node.get("scale", [1, 1, 1]), dtype=torch.float64)
    matrix[:3, 3] = torch.tensor(node.get("translation", [0, 0, 0]), dtype=torch.float64)
    return matrix


def _read_primitive(
    path: Path, content: dict[str, Any], data: bytes, primitive: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """A primitive's tensors by the names of `Splats`."""
    attributes = primitive["attributes"]
    needed = ["POSITION", *(f"{NAME}:{name}" for name in ("ROTATION", "SCALE", "OPACITY"))]
    degree = max((d for d in range(4) if f"{NAME}:SH_DEGREE_{d}_COEF_0" in attributes), default=0)
    needed += _harmonic_names(degree)
    missing = [name for name in needed if name not in attributes]
    if missing:
        raise ValueError(f"{path} has splats without {', '.join(missing)}; export it again")
    if f"{NAME}:SH_DEGREE_4_COEF_0" in attributes:
        raise ValueError(f"{path} has harmonics of degree 4; export it with degree 3 or less")
    widths = (3, 4, 3, 1, *[3] * (len(needed) - 4))
    values = [
        _read_accessor(path, content, data, attributes[name], width)
        for name, width in zip(needed, widths, strict=True)
    ]
    if len({len(value) for value in values}) != 1:
        raise ValueError(f"{path} is damaged: its attributes have different numbers of Gaussians")
    means, rotations, scales, opacities, *harmonics = values
    return {
        "means": means,
        "scales": scales.log(),
        "quats": rotations.roll(1, dims=1),
        "opacities": opacities[:, 0].logit(),
        "sh0": harmonics[0][:, None],
        "shN": torch.stack(harmonics[1:], 1) if degree else means.new_zeros(len(means), 0, 3),
    }


def _read_accessor(
    path: Path, content: dict[str, Any], data: bytes, index: int, width: int
) -> torch.Tensor:
    """float32 [count, width] of an accessor; integers are normalised where it says so."""
    accessor = content["accessors"][index]
    if "sparse" in accessor or "bufferView" not in accessor:
        raise ValueError(f"{path} has sparse accessors, which are not read; export it without")
    view = content["bufferViews"][accessor["bufferView"]]
    if view.get("extensions"):
        raise ValueError(
            f"{path} is compressed by {', '.join(view['extensions'])}; export it without"
        )
    kind = np.dtype(TYPES[accessor["componentType"]])
    if WIDTHS[accessor["type"]] != width:
        raise ValueError(f"{path} is damaged: a {accessor['type']} is where {width} values belong")
    count, item = accessor["count"], kind.itemsize * width
    stride = view.get("byteStride", item)
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    buffer = _read_buffer(path, content["buffers"][view["buffer"]], data)
    whole = all(isinstance(number, int) for number in (count, stride, start))
    if not whole or min(count, start) < 0 or stride < item:
        raise ValueError(f"{path} is damaged: an accessor has impossible numbers")
    if count and start + stride * (count - 1) + item > len(buffer):
        raise ValueError(f"{path} is truncated: an accessor ends behind the data; export it again")
    table = np.ndarray((count, width), kind, buffer, start, (stride, kind.itemsize))
    values = table.astype(np.float32)
    if accessor.get("normalized") and kind.kind in "iu":
        values = np.maximum(values / np.iinfo(kind).max, -1)
    return torch.from_numpy(values)


def _read_buffer(path: Path, buffer: dict[str, Any], data: bytes) -> bytes:
    uri = buffer.get("uri")
    if uri is None:
        return data
    if uri.startswith("data:"):
        try:
            return base64.b64decode(uri.partition(",")[2], validate=True)
        except binascii.Error as error:
            raise ValueError(
                f"{path} is damaged: its data is not base64; export it again"
            ) from error
    name = unquote(uri)
    if len(name) > 255 or Path(name).name != name or not (path.parent / name).is_file():
        raise ValueError(
            f"{path} names {name[:80]!r}, which is not beside it; copy the whole folder"
        )
    return (path.parent / name).read_bytes()
