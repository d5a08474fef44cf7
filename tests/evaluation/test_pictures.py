# Pictures: rounding, error colours, canvases, files.
import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from evaluation.pictures import ERROR_TOP, draw_error_map, join_side_by_side, save_png, to_uint8


def test_to_uint8_rounds_and_clamps():
    values = np.array([-1, 0, 0.4 / 255, 0.6 / 255, 0.5, 1, 2, np.nan], np.float32)
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 128, 255, 255, 0]
    assert to_uint8(torch.tensor([1.0], requires_grad=True)).tolist() == [255]


def test_to_uint8_returns_photos_unchanged():
    every = np.arange(256, dtype=np.uint8)
    assert (to_uint8(every / np.float32(255)) == every).all()
    assert (to_uint8(every) == every).all()
    with pytest.raises(ValueError, match="int64"):
        to_uint8(np.arange(3))


def test_error_map_has_a_fixed_scale():
    truth = np.zeros((1, 4, 3), np.float32)
    error = np.array([0, ERROR_TOP / 2, ERROR_TOP, 1], np.float32)
    colors = draw_error_map(np.repeat(error[None, :, None], 3, 2), truth)
    expected = colormaps["magma"]([0, 128, 255, 255])[:, :3] * 255
    assert np.abs(colors[0] - expected).max() <= 0.5 + 1e-6


def test_error_map_is_the_same_for_floats_and_bytes():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 8, 9, 3), dtype=np.uint8)
    from_floats = draw_error_map(torch.tensor(a) / 255, torch.tensor(b) / 255)
    assert (draw_error_map(a, b) == from_floats).all()
    with pytest.raises(ValueError, match="one size"):
        draw_error_map(a, b[:-1])


def test_side_by_side_joins_in_order():
    a, b = np.zeros((2, 3, 3), np.uint8), torch.full((2, 5, 3), 0.5)
    canvas = join_side_by_side([a, b], gap=2)
    assert canvas.shape == (2, 10, 3)
    assert canvas[0, :, 0].tolist() == [0] * 3 + [255] * 2 + [128] * 5
    for images in ([], [a, a[:1]]):
        with pytest.raises(ValueError, match="one height"):
            join_side_by_side(images)


def test_png_is_exact_and_whole(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = save_png(tmp_path / "new" / "a.png", image)
    assert (np.asarray(Image.open(file)) == image).all()
    with pytest.raises(Exception, match=r"."):
        save_png(file, np.zeros((2, 2, 2, 2), np.uint8))
    assert [f.name for f in file.parent.iterdir()] == ["a.png"]
    assert (np.asarray(Image.open(file)) == image).all()


def test_a_failed_rename_leaves_nothing(tmp_path):
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OSError):
        save_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]
