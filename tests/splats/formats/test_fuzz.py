# Mutated .ply and .pt files: whatever is in them, only ValueError or OSError comes out.
from pathlib import Path

import numpy as np
import pytest
import torch

from splats.formats import checkpoint, ply
from splats.gaussians import Splats

MUTATIONS = 300


def some_splats() -> Splats:
    g = torch.Generator().manual_seed(1)
    shapes = ((20, 3), (20, 3), (20, 4), (20,), (20, 1, 3), (20, 3, 3))
    return Splats(*(torch.randn(shape, generator=g) for shape in shapes))


def write_ascii(path: Path, splats: Splats) -> None:
    ply.write(path, splats)
    header, data = path.read_bytes().split(b"end_header\n", 1)
    rows = np.frombuffer(data, "<f4").reshape(splats.count, -1)
    text = "\n".join(" ".join(map(str, row)) for row in rows.tolist())
    header = header.replace(b"binary_little_endian", b"ascii")
    path.write_bytes(header + b"end_header\n" + text.encode() + b"\n")


def write_checkpoint(path: Path, splats: Splats) -> None:
    checkpoint.write(path, splats, 100)


def write_old_checkpoint(path: Path, splats: Splats) -> None:
    content = {"step": 100, "splats": splats.state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def mutate(content: bytes, head: int, rng: np.random.Generator) -> bytes:
    """One to four random edits, half of them in the first `head` bytes."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        end = min(head, len(data)) if rng.random() < 0.5 else len(data)
        at = int(rng.integers(0, max(end, 1)))
        size = int(rng.integers(1, 40))
        match rng.integers(6):
            case 0:
                data[at : at + 1] = rng.bytes(1)
            case 1:
                data[at : at + size] = rng.bytes(size)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size]
            case 4:
                del data[at:]
            case 5:  # a digit of a count or an index
                digits = [i for i, byte in enumerate(data[:head]) if chr(byte).isdigit()]
                if digits:
                    data[digits[rng.integers(len(digits))]] = int(rng.integers(48, 58))
    return bytes(data)


@pytest.mark.parametrize(
    ("write", "read", "suffix"),
    [
        (ply.write, ply.read, ".ply"),
        (write_ascii, ply.read, ".ply"),
        (write_checkpoint, checkpoint.read, ".pt"),
        (write_old_checkpoint, checkpoint.read, ".pt"),
    ],
    ids=["ply", "ascii", "pt", "old_pt"],
)
def test_mutated_files_raise_one_sentence_or_are_read(tmp_path, write, read, suffix):
    good, bad = tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"
    write(good, some_splats())
    read(good)
    content = good.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(MUTATIONS):
        bad.write_bytes(mutate(content, 800, rng))
        try:
            read(bad)
        except (ValueError, OSError) as error:
            assert str(bad) in str(error)
            assert "\n" not in str(error)
            refused += 1
    assert refused > MUTATIONS // 3
