# Mutates captures and loads them; run as its own process by test_fuzz.py, so that a crash of the
# C++ reader, a hang or a huge allocation is noticed. Arguments: a folder to work in, first seed,
# number of seeds. Prints how many were refused and how many still loaded.
from __future__ import annotations

import json
import logging
import random
import re
import resource
import shutil
import sys
from pathlib import Path

import numpy as np

import scenes
from tests.scenes.captures import camera_ring, write_capture
from tests.scenes.formats import exports

VALUES = (b"null", b"[]", b"{}", b'"x"', b"1e300", b"-1", b"0", b"true", b"1e999", b"9" * 20)
WORDS = (b"nan", b"inf", b"-1", b"1e300", b"null", b"[]", b"{}", b'"x"', b"\xff", b"\0", b"\n")


def build(root: Path) -> list[Path]:
    """Captures of every kind; returns the files to be mutated."""
    files = []
    for kind, params in {
        "PINHOLE": [30, 30, 16, 12],
        "SIMPLE_RADIAL": [30, 16, 12, 0.05],
        "OPENCV": [30, 31, 16, 12, 0.05, -0.01, 0.001, 0.001],
        "OPENCV_FISHEYE": [30, 31, 16, 12, 0.02, -0.01, 0, 0],
        "FULL_OPENCV": [30, 31, 16, 12, 0.02, -0.01, 0, 0, 0.01, 0.01, 0, 0],
        "EUCM": [30, 31, 16, 12, 0.6, 1.1],
        "DIVISION": [30, 31, 16, 12, -0.1],
        "THIN_PRISM_FISHEYE": [30, 31, 16, 12, 0.02, -0.01, 0, 0, 0, 0, 0.001, 0],
        "EQUIRECTANGULAR": [64, 32],
    }.items():
        for text in (False, True):
            place = root / f"{kind}-{'text' if text else 'binary'}"
            names = [f"{i}.png" for i in range(4)]
            size = (64, 32) if kind == "EQUIRECTANGULAR" else (32, 24)
            camera = (kind, *size, params)
            write_capture(place, names, cameras=[camera], text=text, n_points=5)
            files += [
                file
                for file in (place / "sparse/0").iterdir()
                if file.stem in ("cameras", "images", "points3D")
            ]
    poses = np.linalg.inv(camera_ring(4)) @ np.diag([1.0, -1, -1, 1])
    content = {
        **{"w": 32, "h": 24, "fl_x": 30.0, "fl_y": 31.0, "cx": 16, "cy": 12, "k1": 0.05},
        "ply_file_path": "points.ply",
        "applied_transform": np.eye(4)[:3].tolist(),
        "frames": [
            {
                "file_path": f"images/{i}.png",
                "transform_matrix": pose.round(4).tolist(),
                "mask_path": f"masks/{i}.png",
            }
            for i, pose in enumerate(poses)
        ],
    }
    place = root / "transforms"
    place.mkdir()
    shutil.copytree(root / "PINHOLE-text/images", place / "images")
    shutil.copytree(place / "images", place / "masks")
    files += [place / "masks/1.png"] * 4
    (place / "transforms.json").write_text(json.dumps(content))
    head = "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\n"
    (place / "points.ply").write_text(head + "property float z\nend_header\n0 0 1\n1 2 3\n")
    (place / "split.json").write_text(json.dumps({"train": ["0", "1"], "test": ["2", 3]}))
    files += [place / name for name in ("points.ply", "split.json")]
    files += [place / "transforms.json"] * 12
    content |= {
        "k4": 0.03,
        "train_filenames": ["images/0.png", "images/1.png"],
        "test_filenames": ["images/2.png"],
    }
    place = root / "lists"
    shutil.copytree(root / "PINHOLE-text/images", place / "images")
    (place / "transforms.json").write_text(json.dumps(content))
    files += [place / "transforms.json"] * 4
    place = root / "synthetic"
    shutil.copytree(root / "PINHOLE-text/images", place / "train")
    for part, views in {"train": (0, 1), "test": (2, 3)}.items():
        frames = [
            {"file_path": f"./train/{i}", "transform_matrix": poses[i].round(4).tolist()}
            for i in views
        ]
        file = place / f"transforms_{part}.json"
        file.write_text(json.dumps({"camera_angle_x": 0.98, "frames": frames}))
        files += [file] * 4
    return sorted(files + build_exports(root))


def build_exports(root: Path) -> list[Path]:
    """Exports of other programs; returns their files."""
    capture = scenes.load(root / "PINHOLE-text", progress=False)
    files = []
    for kind, write in exports.WRITERS.items():
        place = root / kind
        place.mkdir()
        write(place, capture)
        here = [file for file in place.rglob("*") if file.is_file() and file.suffix != ".png"]
        files += here[:2] * 2
    return files


def mutate(data: bytes, rng: random.Random) -> bytes:
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            data[at : at + rng.randint(1, 9)] = rng.choice(WORDS)
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 80)]
        elif kind == 3:
            del data[at : at + rng.randint(1, 9)]
        elif kind == 4:
            data[at : at + 8] = rng.randbytes(8)
        else:
            data[at : at + 1] = bytes([rng.choice(b'0123456789.-eE \n"[]{},:') & 0xFF])
    return bytes(data)


def mutate_values(data: bytes, rng: random.Random) -> bytes:
    """Replace numbers by others or by something else, so that the syntax mostly stays valid."""
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?", data))
    picked = rng.sample(numbers, min(len(numbers), rng.randint(1, 4)))
    for number in sorted(picked, key=lambda number: -number.start()):
        word = rng.choice((*VALUES, number.group() + rng.choice((b"0", b"9e5", b".5"))))
        data = data[: number.start()] + word + data[number.end() :]
    return data


def main(root: Path, first: int, count: int) -> None:
    logging.disable(logging.CRITICAL)
    files = build(root)
    load = scenes.load  # its libraries, too, are loaded before the limit
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30,) * 2)
    refused = 0
    for seed in range(first, first + count):
        rng = random.Random(seed)
        file = rng.choice(files)
        whole = file.read_bytes()
        place = next(folder for folder in file.parents if folder.parent == root)
        split_file = place / "split.json" if rng.random() < 0.3 else None
        by_value = file.suffix != ".npy" and rng.random() < 0.5
        file.write_bytes((mutate_values if by_value else mutate)(whole, rng))
        try:
            scene = load(
                place,
                progress=False,
                split_file=split_file if split_file and split_file.exists() else None,
                normalize=rng.random() < 0.3,
            )
            assert np.isfinite(scene.cameras.viewmats.numpy()).all()
            assert np.isfinite(scene.cameras.Ks.numpy()).all()
            assert np.isfinite(scene.points.numpy()).all()
        except (ValueError, OSError) as error:
            assert 10 < len(str(error)) < 600 and "\n" not in str(error), repr(error)
            refused += 1
        except BaseException:
            sys.stderr.write(f"seed {seed}, {file.relative_to(root)}\n")
            raise
        finally:
            file.write_bytes(whole)
    sys.stdout.write(json.dumps({"refused": refused, "loaded": count - refused}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
