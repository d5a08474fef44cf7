# Numbers of a fixer against formulas in float64.
import numpy as np
import pytest
import torch

from evaluation import fixing_report
from evaluation.fixing import FixingMetrics, compute_luma
from evaluation.metrics import Metrics


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(20, 24, 3, generator=generator)
    render = truth.clone()
    render[:, :12] += 0.02
    render[:, 12:] -= 0.3
    return render.clamp(0, 1), (truth + 0.05).clamp(0, 1), truth


def psnr(a, b):
    return -10 * np.log10(np.mean((np.float64(a) - np.float64(b)) ** 2))


def test_rgb_numbers_and_gains(images):
    render, fixed, truth = images
    row = FixingMetrics(Metrics(None))(render, fixed, truth)
    assert row["psnr"] == pytest.approx(psnr(fixed, truth))
    assert row["render_psnr"] == pytest.approx(psnr(render, truth))
    assert row["gain_psnr"] == pytest.approx(psnr(fixed, truth) - psnr(render, truth))
    assert row["lpips"] is None
    assert row["gain_lpips"] is None


def test_y_is_bt601_in_studio_swing(images):
    render, fixed, truth = (np.float64(x) for x in images)

    def y(x):
        return (65.481 * x[..., 0] + 128.553 * x[..., 1] + 24.966 * x[..., 2] + 16) / 255

    np.testing.assert_allclose(compute_luma(images[0])[..., 1], y(render), atol=1e-7)
    row = FixingMetrics(Metrics(None), "y")(*images)
    assert row["psnr"] == pytest.approx(psnr(y(fixed), y(truth)), abs=1e-4)
    assert row["render_psnr"] == pytest.approx(psnr(y(render), y(truth)), abs=1e-4)


def test_good_and_bad_pixels_are_the_renders(images):
    render, fixed, truth = images
    judge = FixingMetrics(Metrics(None))
    row = judge(render, fixed, truth)
    good = ((render - truth) ** 2).mean(-1) <= 0.01
    assert 0 < good.sum() < good.numel()
    assert row["psnr_good"] == pytest.approx(psnr(fixed[good], truth[good]), abs=1e-4)
    assert row["render_psnr_bad"] == pytest.approx(psnr(render[~good], truth[~good]), abs=1e-4)
    judge(truth, truth, truth)  # all good
    pooled = judge.pool()
    expected = ((fixed[good].double() - truth[good].double()) ** 2).mean(-1).sum()
    expected = -10 * np.log10(float(expected / (good.sum() + good.numel())))
    assert pooled["psnr_good"] == pytest.approx(expected, abs=1e-4)
    assert pooled["psnr_bad"] == pytest.approx(row["psnr_bad"])


def test_no_bad_pixels_is_none(images):
    truth = images[2]
    row = FixingMetrics(Metrics(None))(truth, truth, truth)
    assert row["psnr_bad"] is None
    assert row["psnr_good"] == row["psnr"]


def test_both_nets_of_lpips_reach_the_tables(backbones_folder, tmp_path):
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(64, 64, 3, generator=generator)
    noise = torch.rand(64, 64, 3, generator=generator) - 0.5
    judge = FixingMetrics(Metrics("both", backbones=backbones_folder))
    result = fixing_report.summarize({"a": judge(truth + 0.8 * noise, truth, truth)}, judge)
    assert min(result["mean"][f"gain_{name}"] for name in ("lpips", "lpips_vgg")) > 0
    fixing_report.write_metrics_text(tmp_path / "metrics.txt", result)
    text = (tmp_path / "metrics.txt").read_text()
    assert "\nLPIPS: 0.0000\nLPIPS VGG: 0.0000\n" in text
    head, _, fixed, _ = fixing_report.format_table(result).splitlines()
    assert head.split()[2:5] == ["LPIPS", "LPIPS", "VGG"] and fixed.split()[3:5] == ["0.000"] * 2
