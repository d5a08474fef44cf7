import pytest
import torch

from evaluation.color_correction import METHODS, correct_colors


@pytest.fixture
def photo():
    return 0.2 + 0.6 * torch.rand(30, 40, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", METHODS)
def test_a_change_of_exposure_is_undone(photo, method):
    render = (photo * torch.tensor([0.7, 0.9, 1.1]) + 0.02).clamp(0, 1)
    fitted = correct_colors(render, photo, method=method)
    assert fitted.dtype == photo.dtype and (fitted - photo).abs().max() < 2e-3


def test_the_quadratic_fit_mixes_channels(photo):
    mixed = photo @ torch.tensor([[0.8, 0.1, 0.0], [0.1, 0.8, 0.1], [0.0, 0.1, 0.7]])
    error = {
        method: (correct_colors(mixed, photo, method=method) - photo).abs().mean()
        for method in METHODS
    }
    assert error["quadratic"] < 1e-3 < 5e-3 < error["affine"]


@pytest.mark.parametrize("method", METHODS)
def test_what_the_mask_hides_has_no_influence(photo, method):
    render = (0.8 * photo).clone()
    mask = torch.ones(30, 40, dtype=torch.bool)
    mask[:, 20:] = False
    render[:, 20:] = 0.5
    fitted = correct_colors(render, photo, mask, method)
    assert (fitted - photo)[:, :20].abs().max() < 2e-3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_pictures_of_one_colour_give_finite_values(photo, method, value):
    flat = torch.full_like(photo, value)
    assert correct_colors(flat, photo, method=method).isfinite().all()
    assert correct_colors(photo, flat, method=method).isfinite().all()
