# Formats with fewer bits, converted by GaussForge in a process of its own.
import gzip
import json
import struct
import zipfile

import numpy as np
import pytest
import torch

import splats
from benchmarks.quality.splat_formats import known_splats, measure_loss
from splats.formats import packed, ply
from splats.gaussians import SH_C0

# The largest errors of the formats, twice what benchmarks.quality.splat_formats measures:
# position, log scale, rotation (degrees), opacity, colour, harmonics, logit of an opacity of 1
LIMITS = {
    ".compressed.ply": (0.03, 0.006, 0.4, 0.004, 0.004, 0.032, 6.9),
    ".splat": (0, 1e-5, 1.7, 0.008, 0.008, None, 10.0),
    ".spz": (0.00025, 0.063, 0.4, 0.004, 0.008, 0.14, 13.8),
    ".sog": (0.003, 0.04, 2.7, 0.008, 0.006, 0.3, 5.5),
}


@pytest.mark.parametrize("ending", LIMITS)
@pytest.mark.parametrize("degree", [0, 3])
def test_known_values_come_back_within_the_format_s_precision(tmp_path, ending, degree):
    original = known_splats(300, degree)  # more than the 256 of a chunk, and no multiple of it
    splats.save(tmp_path / f"a{ending}", original)
    loss = measure_loss(original, splats.load(tmp_path / f"a{ending}"))
    *limits, harmonics, opaque = LIMITS[ending]
    errors = (loss.position, loss.scale, loss.rotation, loss.opacity, loss.color)
    assert all(error <= limit for error, limit in zip(errors, limits, strict=True)), loss
    if harmonics is None and degree:
        assert loss.harmonics is None
    else:
        assert loss.harmonics <= (harmonics or 0), loss
    assert loss.opaque == pytest.approx(opaque, abs=0.1)
    assert loss.in_order or ending == ".sog"


def test_a_compressed_ply_is_known_by_its_header_too(tmp_path):
    original = known_splats(20)
    splats.save(tmp_path / "a.compressed.ply", original)
    (tmp_path / "a.compressed.ply").rename(tmp_path / "a.ply")
    assert measure_loss(original, splats.load(tmp_path / "a.ply")).harmonics < 0.032


def write_spz(path, original, version):
    """The layout of versions 1 and 2 (`PackedGaussians` in Niantic's spz): half floats or 24 bits
    for positions, alphas, colours, scales, three components of rotations, harmonics."""
    n, values = original.count, {k: v.detach().numpy() for k, v in original.items()}
    quats = values["quats"] / np.linalg.norm(values["quats"], axis=1, keepdims=True)
    x, y, z = (quats * np.sign(quats[:, :1] + 1e-9))[:, 1:].T
    if version == 1:
        positions = values["means"].astype("<f2").tobytes()
    else:
        fixed = np.round(values["means"] * 4096).astype("<i4")
        positions = fixed[..., None].view("u1").reshape(n, 3, 4)[..., :3].tobytes()
    quantise = lambda v: np.round(v).clip(0, 255).astype(np.uint8).tobytes()  # noqa: E731
    parts = [
        positions,
        quantise(255 / (1 + np.exp(-values["opacities"]))),
        quantise((values["sh0"][:, 0] * 0.15 + 0.5) * 255),
        quantise((values["scales"] + 10) * 16),
        quantise((np.stack([x, y, z], 1) + 1) * 127.5),
        quantise(values["shN"] * 128 + 128),
    ]
    header = struct.pack("<IIIBBBB", 0x5053474E, version, n, original.sh_degree, 12, 0, 0)
    path.write_bytes(gzip.compress(header + b"".join(parts)))


@pytest.mark.parametrize("version", [1, 2])
def test_older_spz_are_read(tmp_path, version):
    original = known_splats(300)
    write_spz(tmp_path / "a.spz", original, version)
    loss = measure_loss(original, splats.load(tmp_path / "a.spz"))
    assert loss.position < (0.005 if version == 1 else 0.00025)
    assert loss.rotation < 12  # the largest component is a difference of bytes
    assert loss.scale < 0.04 and loss.color < 0.01 and loss.harmonics < 0.01 and loss.opacity < 0.01


def test_newer_spz_are_read(tmp_path):
    import gaussforge

    original = known_splats(300)
    ply.write(tmp_path / "a.ply", original)
    content = (tmp_path / "a.ply").read_bytes()
    result = gaussforge.GaussForge().convert(content, "ply", "spz", spz_version=4)
    (tmp_path / "a.spz").write_bytes(result["data"])
    loss = measure_loss(original, splats.load(tmp_path / "a.spz"))
    assert loss.rotation < 0.4 and loss.position < 0.00025 and loss.harmonics < 0.14


def test_an_unpacked_sog_is_read_by_its_meta_json(tmp_path):
    original = known_splats(50)
    splats.save(tmp_path / "a.sog", original)
    with zipfile.ZipFile(tmp_path / "a.sog") as archive:
        archive.extractall(tmp_path)
    assert measure_loss(original, splats.load(tmp_path / "meta.json")).position < 0.003
    meta = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / meta["means"]["files"][0]).unlink()
    with pytest.raises(ValueError, match=r"which is not beside it; copy the whole folder"):
        splats.load(tmp_path / "meta.json")
    meta["means"]["files"][0] = "../a.sog"
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"names '\.\./a\.sog', which is not beside it"):
        splats.load(tmp_path / "meta.json")
    (tmp_path / "meta.json").write_text('{"a": [1]}')
    with pytest.raises(ValueError, match="it names no pictures"):
        splats.load(tmp_path / "meta.json")


@pytest.mark.parametrize("ending", LIMITS)
def test_damaged_files_are_named_in_one_sentence(tmp_path, ending):
    file = tmp_path / f"a{ending}"
    splats.save(file, known_splats(30))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2 + 1])
    with pytest.raises(ValueError, match=r"is (damaged|truncated)") as error:
        splats.load(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("child", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "exit code -11"),
        ("import time; time.sleep(60)", "no result after 1 s"),
        ("raise MemoryError('too much')", "MemoryError: too much"),
    ],
)
def test_a_decoder_that_fails_is_an_error_of_the_file(tmp_path, monkeypatch, child, reason):
    (tmp_path / "a.splat").write_bytes(bytes(32))
    monkeypatch.setattr(packed, "CONVERT", child)
    monkeypatch.setattr(packed, "LEAST_SECONDS", 1)
    with pytest.raises(ValueError, match=rf"a\.splat is damaged .*{reason}"):
        splats.load(tmp_path / "a.splat")
    if "sleep" not in child:  # the clustering for a .sog may take long
        with pytest.raises(ValueError, match=rf"b\.spz cannot be written .*{reason}"):
            splats.save(tmp_path / "b.spz", known_splats(3))
    assert [file.name for file in tmp_path.iterdir()] == ["a.splat"]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("sys.exit(4)", ValueError, "needs the package gaussforge, which cannot be loaded"),
        ("raise MemoryError", ValueError, "needs more memory than"),
        ("import os; os.kill(os.getpid(), 9)", ValueError, "needs more memory than"),
        ("open('/dev/full', 'wb', 0).write(b'x')", OSError, "temporary folder .* no space left"),
    ],
)
def test_the_machine_s_failures_are_not_the_file_s(tmp_path, monkeypatch, line, error, message):
    (tmp_path / "a.splat").write_bytes(bytes(32))
    changed = packed.CONVERT.replace("    import gaussforge\n", f"    {line}\n")
    monkeypatch.setattr(packed, "CONVERT", changed)
    with pytest.raises(error, match=rf"a\.splat .*{message}"):
        splats.load(tmp_path / "a.splat")
    if error is OSError:
        with pytest.raises(OSError, match=r"b\.spz cannot be written: no space left on the disk"):
            splats.save(tmp_path / "b.spz", known_splats(3))


def test_an_unknown_spz_is_named(tmp_path):
    write_spz(tmp_path / "a.spz", known_splats(3), 9)
    with pytest.raises(ValueError, match=r"a\.spz is \.spz of version 9; versions 1 to 4 are read"):
        splats.load(tmp_path / "a.spz")


def test_what_a_format_cannot_hold_is_refused(tmp_path):
    far = known_splats(5)
    with torch.no_grad():
        far["means"][2, 0] = 5000
    with pytest.raises(ValueError, match=r"a\.spz: \.spz holds positions up to 2,047 .* 5,000"):
        splats.save(tmp_path / "a.spz", far)
    with torch.no_grad():
        far["means"][2, 0] = torch.nan
    for ending in LIMITS:
        with pytest.raises(ValueError, match=rf"a\{ending}.*NaN or infinite"):
            splats.save(tmp_path / f"a{ending}", far)
    assert not list(tmp_path.iterdir())


def test_the_clustering_of_a_large_sog_is_announced(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packed, "SOG_PALETTE", 10)
    splats.save(tmp_path / "a.sog", known_splats(11, 0))
    assert not caplog.text
    splats.save(tmp_path / "a.sog", known_splats(11, 1))
    assert "harmonics of more than 10 Gaussians are clustered" in caplog.text


def test_a_splat_file_is_antimatter15_s(tmp_path):
    """32 bytes: position, linear scales, RGBA, and (w, x, y, z) as 128 q + 128."""
    row = struct.pack("<6f8B", 1, -2, 3, 0.1, 0.2, 0.5, 255, 0, 51, 204, 255, 128, 128, 128)
    (tmp_path / "a.splat").write_bytes(row)
    back = splats.load(tmp_path / "a.splat")
    assert back["means"].tolist() == [[1, -2, 3]]
    torch.testing.assert_close(back["scales"].exp(), torch.tensor([[0.1, 0.2, 0.5]]))
    torch.testing.assert_close(
        back["sh0"][0] * SH_C0 + 0.5, torch.tensor([[1, 0, 0.2]]), atol=1e-6, rtol=0
    )
    assert back["opacities"].sigmoid().item() == pytest.approx(0.8, abs=1e-6)
    assert back["quats"].tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize("kind", packed.LIMITS)
def test_values_that_a_format_cannot_hold_are_clipped_and_counted(tmp_path, caplog, kind):
    original = known_splats(40)
    for name, (least, most) in packed.LIMITS[kind].items():
        original[name].data[0] = most + 5
        original[name].data[1] = least - 5
    path = tmp_path / f"a.{kind}"
    with caplog.at_level("WARNING"):
        splats.save(path, original)
    assert caplog.text.count("2 of 40 Gaussians have") == len(packed.LIMITS[kind])
    back = splats.load(path)
    assert back.count == 40
    for name, (least, most) in packed.LIMITS[kind].items():
        if name == "shN" and back.sh_degree == 0:
            continue
        assert least - 0.1 <= back[name].min() and back[name].max() <= most + 0.1
