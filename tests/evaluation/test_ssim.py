import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from evaluation.ssim import ssim, ssim_plain
from reconstruction.losses import photometric


def images(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height * width)
    truth = torch.rand(height, width, 3, generator=generator)
    noise = 0.2 * torch.randn(height, width, 3, generator=generator)
    return (truth + noise).clamp(0, 1).requires_grad_(), truth


def test_valid_padding_is_torchmetrics_without_its_border():
    prediction, truth = images(40, 33)
    batch = (image.detach().permute(2, 0, 1)[None].double() for image in (prediction, truth))
    _, full = structural_similarity_index_measure(*batch, data_range=1.0, return_full_image=True)
    expected = full[..., 5:-5, 5:-5].mean()
    torch.testing.assert_close(ssim(prediction, truth).double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("size", [(11, 11), (12, 40), (57, 31), (5, 7)])
def test_kernel_agrees_with_its_plain_twin(size, padding):
    prediction, truth = images(*size)
    value = ssim(prediction, truth, padding=padding)
    (gradient,) = torch.autograd.grad(3 * value, prediction)
    padding = "same" if min(size) < 11 else padding
    exact = ssim_plain(prediction.double(), truth.double(), padding=padding)
    (expected,) = torch.autograd.grad(3 * exact, prediction)
    torch.testing.assert_close(value.double(), exact, atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, expected, atol=1e-5 * expected.abs().max(), rtol=1e-3)


def test_plain_gradient_is_that_of_finite_differences():
    prediction, truth = (image.detach().double() for image in images(12, 13))
    prediction.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ssim_plain(x, truth, padding="same"), prediction)


def test_equal_images_have_ssim_one_and_no_loss():
    _, truth = images(30, 30)
    assert ssim(truth, truth).item() == pytest.approx(1, abs=1e-6)
    assert photometric(truth, truth).item() == pytest.approx(0, abs=1e-6)


def test_photometric_loss_mixes_l1_and_dssim():
    prediction, truth = images(30, 30)
    l1 = (prediction - truth).abs().mean()
    expected = 0.7 * l1 + 0.3 * (1 - ssim(prediction, truth))
    torch.testing.assert_close(photometric(prediction, truth, 0.3), expected)
    torch.testing.assert_close(photometric(prediction, truth, 0.0), l1)
