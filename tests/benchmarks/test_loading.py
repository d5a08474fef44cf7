import sys

import pytest

import scenes
from benchmarks.speed import loading


def test_loading_is_compared_with_pillow_on_the_same_photos(tmp_path, monkeypatch, capsys):
    options = "--photos 5 --width 256 --height 192 --repeats 1 --threads 1"
    monkeypatch.setattr(sys, "argv", ["x", *options.split()])
    loading.main()
    head, _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "5 photos of 256x192 at 1/4"
    names = [row.split(" | ")[0][2:] for row in rows]
    assert names == ["Pillow alone", "loading", "loading again"]

    loading.write_capture(tmp_path, loading.Options(photos=5, width=256, height=192))
    small = loading.decode_with_pillow(tmp_path / "images", 4, 1)
    scene = scenes.load(tmp_path, data_factor=4, progress=False)
    for picture, image in zip(small, scene.images, strict=True):
        assert picture == pytest.approx(image)
