# glTF with KHR_gaussian_splatting. Files of splat-transform 3.7.0 come back exactly, see the table
# of benchmarks.quality.splat_formats.
import base64
import json
import struct

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import splats
from benchmarks.quality.splat_formats import known_splats, measure_loss
from splats.formats import gltf
from splats.transform import transform


def open_glb(path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    size = struct.unpack_from("<I", content, 12)[0]
    return json.loads(content[20 : 20 + size]), content[20 + size + 8 :]


def write_gltf(path, content: dict, data: bytes) -> None:
    text = base64.b64encode(data).decode()
    content["buffers"][0]["uri"] = f"data:application/octet-stream;base64,{text}"
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact_but_for_rounding(tmp_path, degree):
    original = known_splats(40, degree)
    splats.save(tmp_path / "a.glb", original)
    loss = measure_loss(original, splats.load(tmp_path / "a.glb"))
    assert max(loss.position, loss.scale, loss.rotation, loss.color, loss.harmonics) < 1e-5
    assert loss.opacity < 2e-6 and loss.in_order
    assert loss.opaque == pytest.approx(13.8, abs=0.1)


def test_values_are_those_of_the_specification(tmp_path):
    """y up (turned about z), linear scales, opacities in [0, 1], quaternions (x, y, z, w)."""
    original = known_splats(3, 1)
    splats.save(tmp_path / "a.glb", original)
    content, data = open_glb(tmp_path / "a.glb")
    attributes = content["meshes"][0]["primitives"][0]["attributes"]

    def values(name: str) -> np.ndarray:
        accessor = content["accessors"][attributes[name]]
        start = content["bufferViews"][accessor["bufferView"]]["byteOffset"]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        return np.frombuffer(data, "<f4", 3 * width, start).reshape(3, width)

    raw = {name: value.detach().numpy() for name, value in original.items()}
    np.testing.assert_allclose(values("POSITION"), raw["means"] * [-1, -1, 1])
    prefix = "KHR_gaussian_splatting:"
    np.testing.assert_allclose(values(prefix + "SCALE"), np.exp(raw["scales"]), rtol=1e-6)
    np.testing.assert_allclose(
        values(prefix + "OPACITY")[:, 0], 1 / (1 + np.exp(-raw["opacities"])), rtol=1e-5
    )
    turn = Rotation.from_rotvec([0, 0, np.pi])
    expected = turn * Rotation.from_quat(raw["quats"][:, [1, 2, 3, 0]])
    angles = (Rotation.from_quat(values(prefix + "ROTATION")) * expected.inv()).magnitude()
    assert angles.max() < 1e-3
    np.testing.assert_array_equal(values(prefix + "SH_DEGREE_0_COEF_0"), raw["sh0"][:, 0])
    for k, sign in enumerate((-1, 1, -1)):  # of y, z and x
        actual = values(f"{prefix}SH_DEGREE_1_COEF_{k}")
        np.testing.assert_allclose(actual, sign * raw["shN"][:, k], atol=1e-6)


def test_nodes_move_splats_and_a_gltf_may_hold_its_data_in_text(tmp_path):
    original = known_splats(30, 2)
    splats.save(tmp_path / "a.glb", original)
    content, data = open_glb(tmp_path / "a.glb")
    node = {"rotation": [0.5, 0.5, 0.5, 0.5], "scale": [2, 2, 2], "translation": [1, 2, 3]}
    content["nodes"] = [{"children": [1], "translation": [0, 0, 5]}, {"mesh": 0, **node}]
    write_gltf(tmp_path / "a.gltf", content, data)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = 2 * torch.from_numpy(Rotation.from_quat(node["rotation"]).as_matrix())
    matrix[:3, 3] = torch.tensor([1.0, 2, 8])
    moved = transform(original.gaussians.detach(), gltf.TURN @ matrix @ gltf.TURN)
    loss = measure_loss(splats.Splats.from_gaussians(moved), splats.load(tmp_path / "a.gltf"))
    assert max(loss.position, loss.scale, loss.harmonics) < 1e-5 and loss.rotation < 0.1

    content["nodes"][1] = {"mesh": 0, "scale": [1, 2, 3]}
    write_gltf(tmp_path / "a.gltf", content, data)
    with pytest.raises(ValueError, match="a node cannot be applied to splats"):
        splats.load(tmp_path / "a.gltf")


def test_quantised_attributes_are_normalised(tmp_path):
    original = known_splats(30, 0)
    splats.save(tmp_path / "a.glb", original)
    content, data = open_glb(tmp_path / "a.glb")
    attributes = content["meshes"][0]["primitives"][0]["attributes"]
    opacities = np.round(original["opacities"].detach().sigmoid().numpy() * 255).astype(np.uint8)
    index = attributes["KHR_gaussian_splatting:OPACITY"]
    content["bufferViews"].append({"buffer": 0, "byteOffset": len(data), "byteLength": 30})
    content["accessors"][index] = {
        "bufferView": len(content["bufferViews"]) - 1,
        "componentType": 5121,
        "normalized": True,
        "count": 30,
        "type": "SCALAR",
    }
    write_gltf(tmp_path / "a.gltf", content, data + opacities.tobytes())
    assert measure_loss(original, splats.load(tmp_path / "a.gltf")).opacity < 0.002


def test_bad_files_are_named_in_one_sentence(tmp_path):
    splats.save(tmp_path / "good.glb", known_splats(10, 1))
    good = (tmp_path / "good.glb").read_bytes()
    name = "KHR_gaussian_splatting"

    def changed(change) -> bytes:
        content, data = open_glb(tmp_path / "good.glb")
        change(content, content["meshes"][0]["primitives"][0])
        write_gltf(tmp_path / "changed.gltf", content, data)
        return (tmp_path / "changed.gltf").read_bytes()

    compressed = {"kernel": "ellipse", "extensions": {f"{name}_compression_spz_2": {}}}
    cases = {
        "empty": (b"", "is empty"),
        "text": (b"hello", "not glTF"),
        "json": (b"[1]", "not glTF"),
        "cut": (good[:-5], "truncated"),
        "mesh": (changed(lambda c, p: p.pop("extensions")), "glTF without splats"),
        "spz": (
            changed(lambda c, p: p["extensions"].update({name: compressed})),
            "compressed by KHR_gaussian_splatting_compression_spz_2; export it without",
        ),
        "kernel": (
            changed(lambda c, p: p["extensions"][name].update(kernel="box")),
            "kernel 'box'",
        ),
        "linear": (
            changed(lambda c, p: p["extensions"][name].update(colorSpace="lin_rec709_display")),
            "colours of the space 'lin_rec709_display'; export it in srgb_rec709_display",
        ),
        "mode": (changed(lambda c, p: p.update(mode=4)), "primitive of mode 4; they are points"),
        "required": (
            changed(lambda c, p: c.update(extensionsRequired=[name, "KHR_foo"])),
            "requires KHR_foo, which is not read; export it without",
        ),
        "scale": (
            changed(lambda c, p: p["attributes"].pop(f"{name}:SCALE")),
            "splats without .*SCALE",
        ),
        "degree": (
            changed(lambda c, p: p["attributes"].update({f"{name}:SH_DEGREE_4_COEF_0": 0})),
            "degree 4",
        ),
        "counts": (changed(lambda c, p: c["accessors"][0].update(count=3)), "different numbers"),
        "liar": (changed(lambda c, p: c["accessors"][0].update(count=10**9)), "truncated"),
        "index": (changed(lambda c, p: p["attributes"].update(POSITION=99)), "damaged glTF"),
        "loop": (changed(lambda c, p: c["nodes"][0].update(children=[0])), "two parents"),
    }
    for case, (content, expected) in cases.items():
        file = tmp_path / f"{case}.gltf"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=expected) as error:
            splats.load(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value), case


def test_values_that_are_not_finite_leave_no_file(tmp_path):
    original = known_splats(5)
    with torch.no_grad():
        original["shN"][2, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"a\.glb.*NaN"):
        splats.save(tmp_path / "a.glb", original)
    assert not list(tmp_path.iterdir())
