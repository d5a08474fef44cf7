# .ksplat files in the layout of mkkellogg's GaussianSplats3D 0.4.7, whose own files of levels 0 to
# 2 were read with the errors that the limits here allow.
import numpy as np
import pytest
import torch

import splats
from benchmarks.quality.splat_formats import known_splats, measure_loss
from splats.formats import ksplat
from splats.gaussians import SH_C0, Splats

BLOCK, BUCKET = 5.0, 16


def write_ksplat(path, parts: list[Splats], level: int, range_: int = 32767) -> None:
    """One section for each part; centres of levels 1 and 2 relative to those of cubic buckets, of
    which the ones that are not full come last."""
    header = np.zeros(ksplat.HEADER, np.uint8)
    header[1] = 1
    header[4:8].view("<u4")[:] = len(parts)
    header[16:20].view("<u4")[:] = sum(part.count for part in parts)
    header[20:22].view("<u2")[:] = level
    header[36:44].view("<f4")[:] = -1.5, 1.5
    headers, bodies = [], []
    for part in parts:
        values = {name: value.detach().numpy() for name, value in part.items()}
        order, buckets, sizes = np.arange(part.count), np.zeros((0, 3), np.float32), []
        if level:
            cells = np.floor(values["means"] / BLOCK)
            groups = []
            for cell in np.unique(cells, axis=0):
                members = np.flatnonzero((cells == cell).all(1))
                groups += [(members[i : i + BUCKET], cell) for i in range(0, len(members), BUCKET)]
            groups.sort(key=lambda group: len(group[0]) < BUCKET)
            order = np.concatenate([members for members, _ in groups])
            buckets = np.float32([(cell + 0.5) * BLOCK for _, cell in groups])
            sizes = [len(members) for members, _ in groups]
        full = sum(size == BUCKET for size in sizes)
        words = np.zeros(ksplat.SECTION_HEADER // 4, "<u4")
        words[:4] = part.count, part.count, BUCKET if level else 0, len(buckets)
        words[4:5].view("<f4")[:] = BLOCK
        words[5:6].view("<u2")[0] = 12
        words[6], words[8], words[9] = range_ if level else 1, full, len(sizes) - full
        words[10:11].view("<u2")[0] = part.sh_degree
        headers.append(words.tobytes())

        center, value, rest, _ = ksplat.RECORD_TYPES[level]
        K = values["shN"].shape[1]
        rows = np.zeros(part.count, [("center", center, 3), ("scale", value, 3),
                                     ("rotation", value, 4), ("color", "u1", 4),
                                     ("rest", rest, 3 * K)])  # fmt: skip
        rows["center"] = values["means"][order]
        if level:
            offsets = values["means"][order] - np.repeat(buckets, sizes, axis=0)
            rows["center"] = np.round(offsets / (BLOCK / 2) * range_) + range_
        rows["scale"] = np.exp(values["scales"][order])
        rows["rotation"] = values["quats"][order]
        rgb = (values["sh0"][order, 0] * SH_C0 + 0.5) * 255
        alpha = 255 / (1 + np.exp(-values["opacities"][order]))
        rows["color"] = np.floor(np.column_stack([rgb, alpha])).clip(0, 255)
        shN = values["shN"][order].transpose(0, 2, 1)
        bands = [shN[:, :, a:b].reshape(part.count, -1) for a, b in ((0, 3), (3, 8), (8, 15))]
        rows["rest"] = np.concatenate(bands, 1)
        if level == 2:
            rows["rest"] = np.round((np.concatenate(bands, 1) + 1.5) / 3 * 255).clip(0, 255)
        bodies.append(np.uint32(sizes[full:]).tobytes() + buckets.tobytes() + rows.tobytes())
    path.write_bytes(header.tobytes() + b"".join(headers) + b"".join(bodies))


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_all_levels_and_degrees(tmp_path, level, degree):
    original = known_splats(200, degree)
    write_ksplat(tmp_path / "a.ksplat", [original], level)
    loss = measure_loss(original, splats.load(tmp_path / "a.ksplat"))
    assert loss.position <= (2e-4 if level else 0)
    assert loss.scale < 2e-3 and loss.rotation < 0.1
    assert loss.opacity < 0.005 and loss.color < 0.005
    assert loss.harmonics <= (0, 5e-4, 0.007)[level]
    assert loss.opaque == pytest.approx(13.8, abs=0.1)


def test_sections_of_different_degrees_are_joined(tmp_path):
    parts = [known_splats(40, 0), known_splats(60, 2)]
    write_ksplat(tmp_path / "a.ksplat", parts, 0)
    back = splats.load(tmp_path / "a.ksplat")
    assert back.count == 100 and back.sh_degree == 2
    assert not back["shN"][:40].any()
    torch.testing.assert_close(back["shN"][40:], parts[1]["shN"])


def test_bad_files_are_named_in_one_sentence(tmp_path):
    write_ksplat(tmp_path / "good.ksplat", [known_splats(50, 1)], 1)
    good = (tmp_path / "good.ksplat").read_bytes()

    def changed(at: int, value: bytes) -> bytes:
        return good[:at] + value + good[at + len(value) :]

    section = ksplat.HEADER
    cases = {
        "empty": (b"", "is empty"),
        "version": (changed(0, b"\7"), "not a .ksplat"),
        "level": (changed(20, b"\5"), "compression level 5"),
        "degree": (changed(section + 40, b"\4"), "degree 4"),
        "cut": (good[:-1], "truncated"),
        "headers": (changed(4, b"\xff\xff"), "truncated"),
        "count": (changed(section, b"\xff\xff\xff\xff"), "truncated"),
        "none": (changed(section, bytes(4)), "no Gaussians"),
        "full": (changed(section + 32, b"\xff\xff\xff\xff"), "no centres"),
        "buckets": (changed(section + ksplat.SECTION_HEADER, bytes(4)), "hold too few"),
    }
    for name, (content, expected) in cases.items():
        file = tmp_path / f"{name}.ksplat"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=expected) as error:
            splats.load(file)
        assert str(file) in str(error.value) and "\n" not in str(error.value), name
