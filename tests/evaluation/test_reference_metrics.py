# The metrics of LVSM's evaluation; their values are held to the original's by benchmarks.parity.
import pytest
import torch

from evaluation.metrics import PSNR_CAP
from evaluation.reference_metrics import ReferenceMetrics, measure_clamped_psnr, measure_ssim


def test_equal_pictures_and_values_outside():
    torch.manual_seed(0)
    truth = torch.rand(3, 24, 32)
    same = ReferenceMetrics()(truth, truth)
    assert same["psnr"] == PSNR_CAP and same["ssim"] == pytest.approx(1)
    wrong = truth.clone()
    wrong[truth > 0.5] += 9
    # PSNR clamps what SSIM sees
    assert measure_clamped_psnr(wrong, truth) == measure_clamped_psnr(wrong.clamp(0, 1), truth)
    assert measure_ssim(wrong, truth) < measure_ssim(wrong.clamp(0, 1), truth)
    with pytest.raises(ValueError, match="pictures are 32x10; SSIM needs 11"):
        measure_ssim(truth[:, :10], truth[:, :10])


def test_lpips_is_of_pictures_from_minus_one_to_one(backbones_folder):
    metrics = ReferenceMetrics(backbones=backbones_folder)
    torch.manual_seed(0)
    a, b = torch.rand(2, 3, 32, 32)
    expected = metrics.network(2 * a[None] - 1, 2 * b[None] - 1).item()
    assert metrics(a, b)["lpips"] == pytest.approx(expected)
