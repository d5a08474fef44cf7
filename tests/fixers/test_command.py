# python -m fixers: pictures, folders, videos, other projects' flags, and mistakes.
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evaluation.video import write_video
from fixers import __main__ as command
from models.gsvar import loading
from runtime.command import run_command
from triplets.pictures import read_image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(monkeypatch, capsys, caplog):
    """call(*arguments) -> exit code and what was said."""

    def run(*arguments) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fixers", *map(str, arguments)])
        caplog.clear()
        caplog.set_level("INFO")
        code = 0
        try:
            run_command(command.main)
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err + caplog.text

    return run


def picture(path: Path, size=(40, 30), mode="RGB", seed=0) -> Path:
    rng = np.random.default_rng(seed)
    channels = {"RGB": (3,), "L": (), "RGBA": (4,), "I;16": ()}[mode]
    kind, top = (np.uint16, 65536) if mode == "I;16" else (np.uint8, 256)
    pixels = rng.integers(0, top, (size[1], size[0], *channels)).astype(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_with_weights_and_reference(call, tmp_path, weights):
    image = picture(tmp_path / "a.png")
    ref = picture(tmp_path / "r.jpg", (80, 60))
    out = tmp_path / "out"
    code, err = call(
        *(image, "--reference", ref, "--checkpoint", weights, "--output_dir", out),
        *("--bridge", "--compare", "--device", "cpu"),
    )
    assert code == 0, err
    assert Image.open(out / "a.png").size == (40, 30)
    assert Image.open(out / "compare/a.png").size == (3 * 40 + 2 * 4, 30)
    assert "resized" in err


def test_difix_flags_do_what_they_did(call, tmp_path, weights):
    image, ref = picture(tmp_path / "a.png"), picture(tmp_path / "r.png")
    code, err = call(
        *("--input_image", image, "--ref_image", ref, "--model_path", weights, "--device", "cpu"),
        *("--prompt", "remove degradation", "--timestep", 199, "--seed", 1),
        *("--height", 32, "--width", 64, "--output_dir", tmp_path / "out"),
    )
    assert code == 0, err
    assert "--prompt has no meaning" in err
    assert Image.open(tmp_path / "out/a.png").size == (40, 30)


@pytest.mark.parametrize("mode", ["L", "RGBA", "I;16"])
def test_other_kinds_of_pictures(call, tmp_path, mode):
    image = picture(tmp_path / "a.png", mode=mode)
    assert call(image, "--fixer", "identity", "--output_dir", tmp_path / "out")[0] == 0
    assert Image.open(tmp_path / "out/a.png").mode == "RGB"


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3)])
def test_extreme_sizes(call, tmp_path, weights, size):
    image = picture(tmp_path / "a.png", size)
    flags = ("--checkpoint", weights, "--batch_size", 64, "--refiner", "none", "--device", "cpu")
    assert call(image, *flags, "--output_dir", tmp_path / "out")[0] == 0
    assert Image.open(tmp_path / "out/a.png").size == size


def test_a_folder_pairs_by_name_and_resumes(call, tmp_path):
    for i, suffix in enumerate((".png", ".JPG", ".webp")):
        picture(tmp_path / f"in/v{i}{suffix}", seed=i)
        picture(tmp_path / f"ref/v{i}.png", seed=i + 9)
    out = tmp_path / "out"
    flags = ("--fixer", "identity", "--output_dir", out)
    code, err = call(tmp_path / "in", "--reference", tmp_path / "ref", *flags)
    assert code == 0, err
    assert sorted(p.name for p in out.iterdir()) == ["v0.png", "v1.png", "v2.png"]
    (out / "v1.png").unlink()
    code, err = call(tmp_path / "in", *flags, "--resume", "--video")
    assert "2 of 3 are there already" in err
    assert (out / "output.mp4").stat().st_size > 0


def test_unnamed_references_pair_in_order_and_it_is_said(call, tmp_path):
    for i in range(2):
        picture(tmp_path / f"in/a{i}.png", seed=i)
        picture(tmp_path / f"ref/b{i}.png", seed=i)
    flags = ("--fixer", "identity", "--output_dir", tmp_path / "out")
    code, err = call(tmp_path / "in", "--reference", tmp_path / "ref", *flags)
    assert code == 0
    assert "sorted order" in err
    picture(tmp_path / "ref/b2.png")
    code, err = call(tmp_path / "in", "--reference", tmp_path / "ref", *flags)
    assert code == 2
    assert "no names fit" in err


def test_a_video_becomes_a_video_and_frames(call, tmp_path):
    frames = [torch.full((48, 64, 3), i / 8) for i in range(8)]
    write_video(tmp_path / "in.mp4", frames, fps=10)
    out = tmp_path / "out"
    code, err = call(
        *(tmp_path / "in.mp4", "--fixer", "identity", "--output_dir", out),
        *("--skip_frames", 1, "--max_frames", 5),
    )
    assert code == 0, err
    assert [p.name for p in sorted((out / "in").iterdir())] == [f"{i:05d}.png" for i in range(1, 6)]
    third = np.asarray(Image.open(out / "in/00003.png")).mean() / 255
    assert third == pytest.approx(3 / 8, abs=0.03)
    from fixers.sources import Video

    assert Video.open(out / "in.mp4").fps == pytest.approx(10)


def test_mistakes_are_one_sentence_and_write_nothing(call, tmp_path, weights):
    good = picture(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    out = ("--output_dir", tmp_path / "out")
    identity = ("--fixer", "identity", *out)
    cases = [
        ((tmp_path / "none.png", *identity), "none.png: no such file"),
        ((tmp_path / "none.mp4", *identity), "none.mp4"),
        ((tmp_path / "empty", *identity), "has no pictures"),
        ((tmp_path / "text.txt", *identity), "neither a picture"),
        ((tmp_path / "bad.png", *identity), "bad.png"),
        ((tmp_path / "bad.mp4", *identity), "bad.mp4"),
        ((good, *identity, "--reference", tmp_path / "gone.png"), "gone.png"),
        ((good, *identity, "--reference", tmp_path / "bad.png"), "bad.png"),
        ((good, *identity, "--max_frames", 0), "--max_frames"),
        ((good, *identity, "--skip_frames", -1), "--skip_frames"),
        ((good, *out, "--bridge", "--no_bridge"), "--no_bridge"),
        ((good, *out, "--checkpoint", tmp_path / "no.pth"), "no.pth"),
        ((good, *out, "--checkpoint", tmp_path / "text.txt"), "text.txt"),
        ((good, *out, "--checkpoint", weights, "--refiner_steps", 1), "refiner_steps"),
        ((good, "--fixer", "identity", "--output_dir", tmp_path), "would be overwritten"),
        (("--fixer", "identity"), "name a picture"),
        ((good, *identity, "--modee", "tile"), "modee"),
    ]
    for arguments, why in cases:
        code, err = call(*arguments)
        assert code == 2, (arguments, err)
        assert why in err, (why, err)
        assert "Traceback" not in err
        assert not list((tmp_path / "out").rglob("*.*")) if (tmp_path / "out").exists() else True


def test_help_teaches():
    shown = subprocess.run(
        [sys.executable, "-m", "fixers", "--help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    for word in ("--reference", "--checkpoint", "--ref_image", "flight.mp4", "--batch_size"):
        assert word in shown


def test_transparency_and_alpha_are_told_to_weights_that_read_them(call, model, tmp_path):
    weights = tmp_path / "w.safetensors"
    loading.save(model(warped_references=True, render_alpha=True), weights)
    picture = (torch.rand(32, 40, 3, generator=torch.Generator().manual_seed(0)) * 255).byte()
    hole = torch.full((32, 40, 1), 255, dtype=torch.uint8)
    hole[8:20, 10:30] = 0
    black = picture * (hole > 0)
    for name, pixels in (
        ("rgba", torch.cat((picture, hole), -1)),
        ("black", black),
        ("alpha", hole.expand(-1, -1, 3)),
        ("warped", picture * (hole == 0)),
    ):
        (tmp_path / name).mkdir()
        Image.fromarray(pixels.numpy()).save(tmp_path / name / "a.png")
    fixed = {}
    for name, flags in {
        "rgba": [],
        "black": [],
        "auto": ["--holes", "auto"],
        "told": ["--alpha", tmp_path / "alpha"],
        "guided": ["--alpha", tmp_path / "alpha", "--reference", tmp_path / "warped", "--warped"],
        "left": ["--alpha", tmp_path / "alpha", "--reference", tmp_path / "warped"],
    }.items():
        source = tmp_path / (name if name in ("rgba", "black") else "black")
        out = tmp_path / f"out_{name}"
        code, said = call(source, "--checkpoint", weights, "--output_dir", out, *flags)
        assert code == 0, said
        assert ("are taken as opaque" in said) == (name in ("rgba", "black", "auto"))
        assert "% of the pixels visibly" in said
        assert ("unwarped references are ignored" in said) == (name == "left")
        fixed[name] = read_image(out / "a.png")
    assert torch.equal(fixed["rgba"], fixed["told"])
    assert torch.equal(fixed["left"], fixed["told"])
    assert torch.equal(fixed["auto"], fixed["told"])
    assert not torch.equal(fixed["black"], fixed["told"])
    assert not torch.equal(fixed["guided"], fixed["told"])
    code, said = call(tmp_path / "black", "--warped")
    assert code == 2 and "--warped describes the references: give --reference too" in said
    nothing = tmp_path / "nothing"
    code, said = call(tmp_path / "black", "--alpha", tmp_path / "none", "--output_dir", nothing)
    assert code == 2 and "(--alpha)" in said and not nothing.exists()
    (tmp_path / "a.mp4").write_bytes(b"")
    code, said = call(tmp_path / "a.mp4", "--alpha", tmp_path / "alpha")
    assert code == 2 and "a video is fixed without" in said


def test_a_broken_picture_among_others_is_told_and_they_are_fixed(call, tmp_path):
    for name in ("a.png", "c.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    code, err = call(tmp_path / "in", "--fixer", "identity", "--output_dir", tmp_path / "out")
    assert code == 2
    assert "1 of 3 could not be read" in err and "b.png" in err and "Traceback" not in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
