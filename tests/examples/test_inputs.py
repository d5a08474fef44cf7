# Generators are built by name, and captures loaded as the flags say.
import subprocess
from pathlib import Path

import pytest
import torch

from examples.gsplat.flags import FixerFlags, Flags
from examples.gsplat.inputs import GENERATORS, load_generator, load_scene
from generators import RenderThenFix
from reconstruction import FixConfig
from tests.conftest import ROOT
from tests.scenes.captures import write_capture

DEVICE = torch.device("cpu")


def test_a_generator_is_named(monkeypatch):
    flags = Flags(Path("capture"), fixing=FixerFlags(fixer="classical"))
    generator = load_generator(flags, FixConfig(), DEVICE)
    assert isinstance(generator, RenderThenFix) and generator.settings["fixer"] == "classical"
    monkeypatch.setitem(GENERATORS, "toy", lambda *inputs: inputs)
    assert load_generator(flags, FixConfig(), DEVICE, "toy") == (flags, FixConfig(), DEVICE)
    with pytest.raises(
        ValueError, match="no generator 'none': use render_then_fix, efficient_lvsm, toy"
    ):
        load_generator(flags, FixConfig(), DEVICE, "none")


def test_the_photos_folder_can_be_named(tmp_path):
    capture, photos = tmp_path / "capture", tmp_path / "photos"
    write_capture(capture)
    (capture / "images").rename(photos)
    with pytest.raises(FileNotFoundError, match="--image_folder"):
        load_scene(Flags(capture, data_factor=1), DEVICE)
    for folder in (photos, Path("../photos")):
        assert len(load_scene(Flags(capture, data_factor=1, image_folder=folder), DEVICE)) == 8
    with pytest.raises(ValueError, match="--video_frames 9"):
        load_scene(Flags(capture, video_frames=9), DEVICE)


def test_a_folder_of_smaller_photos_needs_its_factor(tmp_path):
    write_capture(tmp_path)
    (tmp_path / "images_2").symlink_to(tmp_path / "images")
    smaller = Path("images_2")
    with pytest.raises(ValueError, match="would shrink again; use --data_factor 2"):
        load_scene(Flags(tmp_path, data_factor=4, image_folder=smaller), DEVICE)
    scene = load_scene(Flags(tmp_path, data_factor=2, image_folder=smaller), DEVICE)
    assert scene.cameras.size == (64, 48) and "the cameras are scaled to fit" in scene.notes[0]


def test_the_demo_refuses_what_does_not_exist():
    command = ["bash", ROOT / "scripts/demo.sh", "no/such/clip.mp4"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no/such/clip.mp4 does not exist; give the folder of a capture, or a" in done.stderr
