# Frames, targets and photos; that they are the original's is in tests/models/efficient_lvsm.
import random

import numpy as np
import pytest
import torch
from PIL import Image

from models.layers.rays import pixel_rays
from training.efficient_lvsm.pictures import prepare_photo
from training.efficient_lvsm.selection import (
    evaluated_frames,
    select_frames,
    select_targets,
    spread_inputs,
)


def test_frames_lie_between_the_two_ends():
    rng = random.Random(0)
    for _ in range(200):
        first, last, *others = select_frames(120, 8, rng, 25, 60)
        assert 25 <= last - first <= 60 and first >= 0 and last < 120
        assert len({first, last, *others}) == 8 and all(first < i < last for i in others)


@pytest.mark.parametrize(("frames", "views"), [(7, 8), (26, 8), (25, 2)])
def test_short_scenes_are_refused(frames, views):
    assert select_frames(frames, views, random.Random(0), 25, 100) is None
    assert select_frames(28, 8, random.Random(0), 25, 100) is not None


def test_targets_are_some_of_the_views():
    targets = select_targets(8, 6, random.Random(0))
    assert len(set(targets)) == 6 and set(targets) <= set(range(8))
    with pytest.raises(ValueError, match="8 targets need more than 8 views"):
        select_targets(8, 8, random.Random(0))


def test_inputs_of_an_evaluation():
    assert spread_inputs(4, 9, 1) == [4]
    assert spread_inputs(4, 9, 2) == [4, 9]
    assert spread_inputs(0, 5, 3) == [0, 2, 5]  # 2.5 to even
    assert evaluated_frames((4, 9), (5, 6, 7), 2) == [4, 9, 5, 6, 7]


@pytest.mark.parametrize("shape", [(54, 96), (96, 54)])
def test_the_middle_of_the_photo_stays_where_the_camera_sees_it(shape):
    """The ray through a corner of the square is the ray through that point of the photo."""
    height, width = shape
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 2, width // 2] = 255
    K = torch.tensor([[90.0, 0, width / 2], [0, 80, height / 2], [0, 0, 1]])
    photo, own = prepare_photo(Image.fromarray(pixels), K, 48, 8)
    side = photo.shape[-1]
    assert photo.shape == (3, side, side) and side % 8 == 0 and side <= 48
    assert own[0, 2].item() == pytest.approx(side / 2) == own[1, 2].item()
    bright = photo.sum(0).flatten().argmax().item()
    assert abs(bright // side - side / 2) <= 1 and abs(bright % side - side / 2) <= 1
    _, rays = pixel_rays(torch.eye(4), own, (side, side))
    factor = 48 / height
    x = (0.5 - side / 2) / (K[0, 0] * (round(int(48 / height * width) / 8) * 8) / width)
    y = (0.5 - side / 2) / (K[1, 1] * factor)
    expected = torch.nn.functional.normalize(torch.tensor([x, y, 1.0]), dim=0)
    assert torch.allclose(rays[:, 0, 0], expected, atol=1e-5)
