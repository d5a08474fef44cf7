# A capture format is a reader and a line in FORMATS; the message and the sweeps then know it.
from dataclasses import replace

import pytest

import scenes
from scenes.formats import registry, transforms
from scenes.formats.registry import Format, find_captures
from tests.scenes.formats.test_transforms import write


@pytest.fixture
def toy(monkeypatch):
    """A format whose file is `toy.json`, that of transforms.json; it holds points."""

    def find(folder):
        file = folder / "toy.json"
        return [file] if file.is_file() else []

    def read(file, path, photos):
        return replace(transforms.read(file, photos), kind="toy", needs_points=True)

    monkeypatch.setattr(
        registry,
        "FORMATS",
        (*registry.FORMATS, Format("toy.json", find, read, transforms.count_views)),
    )


def test_a_new_format_is_read_and_named(toy, tmp_path):
    write(tmp_path)
    assert not scenes.load(tmp_path, progress=False).needs_points
    (tmp_path / "transforms.json").rename(tmp_path / "toy.json")
    scene = scenes.load(tmp_path, progress=False)
    assert scene.kind == "toy" and scene.needs_points and len(scene) == 5
    assert find_captures(tmp_path) == [tmp_path]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="is not a capture: it is empty"):
        scenes.load(tmp_path / "empty")


def test_captures_of_a_folder(tmp_path):
    for name in ("b", "a"):
        (tmp_path / "all" / name / "images").mkdir(parents=True)
    (tmp_path / "all" / ".cache").mkdir()
    assert find_captures(tmp_path / "all") == [tmp_path / "all" / name for name in "ab"]
    assert find_captures(tmp_path / "all" / "a") == [tmp_path / "all" / "a"]
    (tmp_path / "photos" / "notes").mkdir(parents=True)
    assert find_captures(tmp_path / "photos") == [tmp_path / "photos"]
