# The comparison sheet: what is where, and its colours.
import numpy as np
import torch

from evaluation.fixing import FixingMetrics
from evaluation.metrics import Metrics
from evaluation.sheet import GAP, SIDE, draw_comparison, draw_gain_map

LINE = 16  # of a caption


def images(height=20, width=320):
    truth = torch.full((height, width, 3), 0.5)
    render, fixed = truth.clone(), truth.clone()
    render[:, : width // 2] += 0.2  # bad on the left, and mended
    fixed[:, width // 2 :] += 0.05  # good on the right, and spoilt
    return render, fixed, truth


def sheet(reference=None, **size):
    three = images(**size)
    return draw_comparison(*three, reference, FixingMetrics(Metrics(None))(*three))


def cell(picture, row, column, height=20, width=320):
    top, left = row * (height + LINE + GAP) + LINE, column * (width + GAP)
    return picture[top : top + height, left : left + width]


def test_pictures_stand_above_their_errors():
    render, fixed, truth = (np.asarray((x * 255).round(), np.uint8) for x in images())
    picture = sheet(torch.zeros(20, 320, 3))
    assert picture.shape == (2 * (20 + LINE + GAP) - GAP, 4 * (320 + GAP) - GAP, 3)
    for column, image in enumerate((render, fixed, truth, np.zeros_like(truth))):
        np.testing.assert_array_equal(cell(picture, 0, column), image)
    of_render, of_fixed = cell(picture, 1, 0), cell(picture, 1, 1)
    assert of_render[:, :160].mean() > of_render[:, 160:].mean() + 50
    assert of_fixed[:, 160:].mean() > of_fixed[:, :160].mean()
    good = cell(picture, 1, 3)
    assert (good[:, :160] == 255).all()
    np.testing.assert_array_equal(good[:, 160:], render[:, 160:])


def test_without_a_reference_there_is_no_fourth_column():
    assert sheet().shape[1] == 3 * (320 + GAP) - GAP


def test_gain_is_blue_and_loss_is_red():
    picture = draw_gain_map(*images()).astype(int)
    red, blue = picture[..., 0], picture[..., 2]
    assert (blue - red)[:, :160].min() > 50
    assert (red - blue)[:, 160:].min() > 50
    same = draw_gain_map(images()[0], images()[0], images()[2])
    assert same.min() > 240  # white


def test_large_pictures_shrink():
    assert sheet(height=30, width=2 * SIDE).shape[1] == 3 * (SIDE + GAP) - GAP


def test_small_pictures_are_enlarged_by_a_whole_number():
    render = np.asarray((images(height=12, width=100)[0] * 255).round(), np.uint8)
    picture = cell(sheet(height=12, width=100), 0, 0, height=48, width=400)
    np.testing.assert_array_equal(picture, render.repeat(4, 0).repeat(4, 1))
