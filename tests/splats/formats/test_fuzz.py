# Mutated files of every format: whatever is in them, only ValueError or OSError comes out, or
# splats of finite values. More of them: python -m tests.splats.formats.test_fuzz 1000
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import splats as package
from splats.formats import checkpoint, ply
from splats.gaussians import NAMES, Splats
from tests.splats.formats.test_foreign import inria
from tests.splats.formats.test_gltf import open_glb, write_gltf
from tests.splats.formats.test_ksplat import write_ksplat


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


def write_inria(path: Path, splats: Splats) -> None:
    torch.save(inria(splats), path)


def write_splatfacto(path: Path, splats: Splats) -> None:
    names = {"sh0": "features_dc", "shN": "features_rest"}
    values = {f"_model.gauss_params.{names.get(k, k)}": v for k, v in splats.state_dict().items()}
    torch.save({"step": 9, "pipeline": values, "lr": np.float64(0.1)}, path)


def write_text_gltf(path: Path, splats: Splats) -> None:
    package.save(path.with_suffix(".glb"), splats)
    write_gltf(path, *open_glb(path.with_suffix(".glb")))


def write_filtered_ply(path: Path, splats: Splats) -> None:
    ply.write(path, splats)
    header, data = path.read_bytes().split(b"end_header\n", 1)
    path.write_bytes(header.replace(b"float nx", b"float filter_3D") + b"end_header\n" + data)


# name: (write, ending, mutations); those of the formats in a process of their own take 0.1 s each
CASES = {
    "ply": (ply.write, ".ply", 300),
    "ascii": (write_ascii, ".ply", 300),
    "filtered": (write_filtered_ply, ".ply", 100),
    "pt": (write_checkpoint, ".pt", 300),
    "old_pt": (write_old_checkpoint, ".pt", 300),
    "inria": (write_inria, ".pth", 200),
    "splatfacto": (write_splatfacto, ".ckpt", 200),
    "ksplat": (lambda path, splats: write_ksplat(path, [splats, splats], 2), ".ksplat", 300),
    "glb": (package.save, ".glb", 300),
    "gltf": (write_text_gltf, ".gltf", 300),
    "compressed": (package.save, ".compressed.ply", 15),
    "splat": (package.save, ".splat", 10),
    "spz": (package.save, ".spz", 15),
    "sog": (package.save, ".sog", 15),
}


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


def fuzz(folder: Path, name: str, count: int, seed: int = 0) -> int:
    """How many of `count` mutated files are refused; AssertionError if one is neither refused in a
    sentence nor read."""
    write, ending, _ = CASES[name]
    good, bad = folder / f"good{ending}", folder / f"bad{ending}"
    write(good, some_splats())
    package.load(good)
    content = good.read_bytes()
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(count):
        bad.write_bytes(mutate(content, 800, rng))
        try:
            splats = package.load(bad)
            assert all(splats[key].isfinite().all() for key in NAMES)
        except (ValueError, OSError) as error:
            assert str(bad) in str(error)
            assert "\n" not in str(error) and len(str(error)) < 600
            refused += 1
    return refused


@pytest.mark.parametrize("name", CASES)
def test_mutated_files_raise_one_sentence_or_are_read(tmp_path, name):
    count = CASES[name][2]
    assert fuzz(tmp_path, name, count) > count // 4


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            total = int(sys.argv[1])
            refused = fuzz(Path(folder), case, total, seed=1)
            sys.stdout.write(f"{case}: {refused} of {total} refused, the others read\n")
            sys.stdout.flush()
