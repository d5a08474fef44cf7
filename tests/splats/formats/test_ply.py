import gsplat
import numpy as np
import plyfile
import pytest
import torch

from splats.formats import ply
from splats.gaussians import NAMES, SH_C0, Splats


def some_splats(count: int = 7, degree: int = 3, seed: int = 0) -> Splats:
    g = torch.Generator().manual_seed(seed)
    K = (degree + 1) ** 2 - 1
    shapes = ((count, 3), (count, 3), (count, 4), (count,), (count, 1, 3), (count, K, 3))
    return Splats(*(torch.randn(shape, generator=g) for shape in shapes))


def same(a: Splats, b: Splats) -> bool:
    return all(torch.equal(a[name], b[name]) for name in NAMES)


def gsplat_bytes(splats: Splats) -> bytes:
    values = {name: splats[name].detach() for name in NAMES}
    return gsplat.export_splats(**values, format="ply")


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_round_trip_is_exact(tmp_path, degree):
    splats = some_splats(degree=degree)
    ply.write(tmp_path / "a.ply", splats)
    back = ply.read(tmp_path / "a.ply")
    assert same(splats, back)
    assert back.sh_degree == degree


def test_special_floats_survive(tmp_path):
    splats = some_splats()
    with torch.no_grad():
        splats["means"][0] = torch.tensor([-0.0, 1e-45, 3.4e38])
    ply.write(tmp_path / "a.ply", splats)
    back = ply.read(tmp_path / "a.ply")["means"].detach()
    assert torch.equal(back.view(torch.int32), splats["means"].detach().view(torch.int32))


@pytest.mark.parametrize("degree", [0, 3])
def test_reads_and_writes_the_bytes_of_gsplat(tmp_path, degree):
    splats = some_splats(degree=degree)
    (tmp_path / "theirs.ply").write_bytes(gsplat_bytes(splats))
    assert same(ply.read(tmp_path / "theirs.ply"), splats)
    ply.write(tmp_path / "ours.ply", splats, normals=False)
    assert (tmp_path / "ours.ply").read_bytes() == (tmp_path / "theirs.ply").read_bytes()


def test_default_layout_is_inrias(tmp_path):
    splats = some_splats(degree=1)
    ply.write(tmp_path / "a.ply", splats)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    assert " ".join(p.name for p in vertex.properties) == (
        "x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 f_rest_0 f_rest_1 f_rest_2 f_rest_3 f_rest_4 f_rest_5 "
        "f_rest_6 f_rest_7 f_rest_8 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    )
    assert vertex["f_rest_1"][2] == splats["shN"][2, 1, 0]  # channel-major: red's second
    assert vertex["f_rest_3"][2] == splats["shN"][2, 0, 1]  # green's first


def shuffled(splats: Splats, dtype: str) -> np.ndarray:
    """The vertex table with columns in random order and one column that splats do not have."""
    names = ply.property_names(3 * splats["shN"].shape[1], normals=False)
    n = splats.count
    columns = [splats[k].detach().reshape(n, -1) for k in ("means", "sh0")]
    columns.append(splats["shN"].detach().transpose(1, 2).reshape(n, -1))
    columns += [splats[k].detach().reshape(n, -1) for k in ("opacities", "scales", "quats")]
    table = dict(zip(names, torch.cat(columns, dim=1).T.numpy(), strict=True))
    table["label"] = np.arange(n)
    order = np.random.default_rng(0).permutation([*names, "label"])
    rows = np.empty(n, [(name, "u1" if name == "label" else dtype) for name in order])
    for name in order:
        rows[name] = table[name]
    return rows


@pytest.mark.parametrize("options", [{"text": True}, {"byte_order": "<"}, {"byte_order": ">"}])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_any_order_type_and_encoding(tmp_path, options, dtype):
    splats = some_splats(degree=2)
    cameras = np.zeros(3, [("a", "f4"), ("b", "i2")])
    elements = [
        plyfile.PlyElement.describe(cameras, "camera"),
        plyfile.PlyElement.describe(shuffled(splats, dtype), "vertex"),
    ]
    plyfile.PlyData(elements, comments=["made elsewhere"], **options).write(tmp_path / "a.ply")
    back = ply.read(tmp_path / "a.ply")
    for name in NAMES:  # ascii is written with 8 digits
        tolerance = 1e-6 if "text" in options else 0
        torch.testing.assert_close(back[name], splats[name], rtol=tolerance, atol=tolerance)


def test_windows_line_ends(tmp_path):
    splats = some_splats(degree=0)
    header, data = gsplat_bytes(splats).split(b"end_header\n", 1)
    file = tmp_path / "a.ply"
    file.write_bytes(header.replace(b"\n", b"\r\n") + b"end_header\r\n" + data)
    assert same(ply.read(file), splats)


def test_bad_files_are_named_in_one_sentence(tmp_path):
    good = gsplat_bytes(some_splats())
    header = good.split(b"end_header\n", 1)[0]
    cases = {
        "empty": (b"", "not a .ply"),
        "photo": (b"\x89PNG\r\n\x1a\n" * 30, "not a .ply"),
        "no end": (header, "truncated"),
        "cut": (good[:-1], "truncated"),
        "liar": (good.replace(b"vertex 7", b"vertex 999999999999999"), "truncated"),
        "huge": (good.replace(b"vertex 7", b"vertex " + b"9" * 40), "damaged"),
        "none": (header.replace(b"vertex 7", b"vertex 0") + b"end_header\n", "no Gaussians"),
        "twice": (good.replace(b"f_dc_1", b"f_dc_0"), "twice"),
        "degree": (good.replace(b"f_rest_44", b"f_else_44"), "44 f_rest"),
        "opacity": (good.replace(b"opacity", b"opaque_"), "has no opacity, which splats need"),
        "long": (b"ply\n" + b"comment x\n" * 200_000, "header of more than 1,048,576 bytes"),
        "cloud": (
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
            b"property float z\nend_header\n0 0 0\n",
            "not splats: it has no f_dc_0",
        ),
        "ascii liar": (
            header.replace(b"binary_little_endian", b"ascii").replace(b"vertex 7", b"vertex 10000")
            + b"end_header\n1 2 3\n",
            "truncated",
        ),
        "ascii words": (
            header.replace(b"binary_little_endian", b"ascii") + b"end_header\n" + b"a b\n" * 500,
            "damaged ascii",
        ),
    }
    for name, (content, expected) in cases.items():
        file = tmp_path / f"{name}.ply"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=expected) as error:
            ply.read(file)
        assert str(file) in str(error.value), name
        assert "\n" not in str(error.value), name


def write_columns(path, values: dict[str, np.ndarray], kinds: dict[str, str] | None = None):
    """A .ply with these columns [N], float32 unless `kinds` has another type."""
    kinds = kinds or {}
    n = len(next(iter(values.values())))
    rows = np.empty(n, [(name, kinds.get(name, "f4")) for name in values])
    for name, value in values.items():
        rows[name] = value
    plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(path)


def columns(splats: Splats) -> dict[str, np.ndarray]:
    rows = shuffled(splats, "f4")
    return {name: rows[name].copy() for name in rows.dtype.names if name != "label"}


def test_opacities_of_exactly_0_and_1_and_scales_of_0_are_finite(tmp_path):
    values = columns(some_splats())
    values["opacity"][:2] = np.inf, -np.inf
    values["scale_1"][3] = -np.inf
    write_columns(tmp_path / "a.ply", values)
    back = ply.read(tmp_path / "a.ply")
    assert back.count == 7
    torch.testing.assert_close(back["opacities"][:2], torch.tensor([13.8155, -13.8155]))
    assert (back["opacities"][:2].sigmoid() - torch.tensor([1.0, 0.0])).abs().max() < 2e-6
    assert back["scales"][3, 1].exp().item() == pytest.approx(1e-6)


def test_gaussians_with_nan_are_left_out_and_counted(tmp_path, caplog):
    splats = some_splats()
    values = columns(splats)
    values["x"][2] = np.nan
    values["scale_0"][5] = np.inf
    values["f_rest_7"][5] = np.nan
    write_columns(tmp_path / "a.ply", values)
    back = ply.read(tmp_path / "a.ply")
    assert torch.equal(back["means"], splats["means"][[0, 1, 3, 4, 6]])
    assert "a.ply: 2 of 7 Gaussians have NaN or infinite values and are left out" in caplog.text
    values["y"][:] = np.nan
    write_columns(tmp_path / "a.ply", values)
    with pytest.raises(ValueError, match=r"a\.ply: all 7 Gaussians have NaN .* export the file"):
        ply.read(tmp_path / "a.ply")


def test_2d_gaussians_are_thin(tmp_path, caplog):
    splats = some_splats(degree=1)
    values = columns(splats)
    del values["scale_2"]
    values["semantic_0"] = np.zeros(7)
    write_columns(tmp_path / "a.ply", values)
    with caplog.at_level("INFO"):
        back = ply.read(tmp_path / "a.ply")
    assert "these are 2D Gaussians; they become 1e-06 thick" in caplog.text
    assert "columns that splats do not have are ignored: semantic_0\n" in caplog.text
    assert torch.equal(back["scales"][:, :2], splats["scales"][:, :2])
    torch.testing.assert_close(back["scales"][:, 2].exp(), torch.full((7,), 1e-6))
    assert torch.equal(back["shN"], splats["shN"])


@pytest.mark.parametrize(("kind", "whole"), [("u1", 255), ("u2", 65535), ("f4", 1), ("f4", 255)])
def test_rgb_in_place_of_harmonics(tmp_path, kind, whole):
    """As `ns-export gaussian-splat --ply-color-mode rgb` writes it (bytes)."""
    values = columns(some_splats(degree=0))
    colors = np.random.default_rng(0).random((7, 3)) if whole == 1 else None
    if colors is None:
        colors = np.random.default_rng(0).integers(0, whole + 1, (7, 3))
    for i, name in enumerate(("red", "green", "blue")):
        del values[f"f_dc_{i}"]
        values[name] = colors[:, i]
    write_columns(tmp_path / "a.ply", values, dict.fromkeys(("red", "green", "blue"), kind))
    back = ply.read(tmp_path / "a.ply")
    expected = torch.from_numpy(colors / whole).float()
    torch.testing.assert_close(back["sh0"][:, 0] * SH_C0 + 0.5, expected, atol=1e-6, rtol=0)


def test_a_3d_filter_is_fused(tmp_path):
    """`save_fused_ply` of Mip-Splatting: s -> sqrt(s^2 + f^2), and the opacity falls by the root of
    the ratio of the determinants."""
    splats = some_splats()
    values = columns(splats)
    values["filter_3D"] = smoothing = np.linspace(0, 0.5, 7, dtype=np.float32)
    write_columns(tmp_path / "a.ply", values)
    back = ply.read(tmp_path / "a.ply")
    squares = splats["scales"].detach().double().exp() ** 2
    total = squares + torch.from_numpy(smoothing).double()[:, None] ** 2
    torch.testing.assert_close(back["scales"].double().exp(), total.sqrt(), rtol=1e-5, atol=0)
    dimming = (squares.prod(1) / total.prod(1)).sqrt()
    expected = splats["opacities"].double().sigmoid() * dimming
    torch.testing.assert_close(back["opacities"].double().sigmoid(), expected, rtol=1e-5, atol=0)
    assert torch.allclose(back["scales"][0], splats["scales"][0], atol=1e-6)
    assert dimming.min() < 0.7  # the test sees the filter


def test_harmonics_of_degree_4_are_refused(tmp_path):
    values = columns(some_splats(degree=3))
    values |= {f"f_rest_{i}": np.zeros(7) for i in range(72)}
    write_columns(tmp_path / "a.ply", values)
    with pytest.raises(ValueError, match=r"72 f_rest properties \(degree 4\).*degree 3 or less"):
        ply.read(tmp_path / "a.ply")


def test_splats_that_are_not_finite_leave_no_file(tmp_path):
    splats = some_splats()
    with torch.no_grad():
        splats["scales"][3, 1] = float("nan")
    with pytest.raises(ValueError, match="1 of 7 Gaussians"):
        ply.write(tmp_path / "a.ply", splats)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(OSError):
        ply.read(tmp_path / "none.ply")
