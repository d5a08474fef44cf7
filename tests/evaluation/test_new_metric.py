# A metric is added by a line in METRICS alone: gains, tables, metrics.txt and reports then have it.
import pytest
import torch

from evaluation import fixing_report, labels
from evaluation.fixing import FixingMetrics
from evaluation.metrics import METRICS, Metric, Metrics
from evaluation.sheet import format_numbers


def measure_mae(prediction, truth):
    return (prediction - truth).abs().mean().item()


@pytest.fixture
def rows(monkeypatch):
    """The numbers of a fixed render with a mean absolute error of 0.05 instead of 0.2."""
    mae = Metric("mae", "MAE", "MAE (of {space})", measure_mae, higher_is_better=False, digits=4)
    monkeypatch.setitem(METRICS, "mae", mae)
    truth = torch.full((20, 24, 3), 0.5)
    judge = FixingMetrics(Metrics(None))
    return judge, {name: judge(truth + 0.2, truth - 0.05, truth) for name in ("a", "b")}


def test_a_gain_is_positive_where_the_error_fell(rows):
    row = rows[1]["a"]
    assert row["mae"] == pytest.approx(0.05)
    assert row["render_mae"] == pytest.approx(0.2)
    assert row["gain_mae"] == pytest.approx(0.15)
    assert "MAE 0.0500" in format_numbers(row, "")


def test_luma_is_only_for_metrics_that_ask_for_it(rows):
    truth = torch.full((20, 24, 3), 0.5)
    row = FixingMetrics(rows[0].metrics, "y")(truth + 0.2, truth - 0.05, truth)
    assert row["mae"] == pytest.approx(0.05)
    assert row["psnr"] > rows[1]["a"]["psnr"]


def test_text_table_and_report_show_it(rows, tmp_path):
    judge, numbers = rows
    result = fixing_report.summarize(numbers, judge)
    assert "MAE (of RGB)" in result["protocol"]
    fixing_report.write_metrics_text(tmp_path / "metrics.txt", result)
    lines = (tmp_path / "metrics.txt").read_text().splitlines()
    assert lines[3].startswith("LPIPS: n/a (")
    assert lines[4] == "MAE: 0.0500"
    assert "MAE of the unfixed render: 0.2000" in lines
    head, unfixed, fixed, _ = fixing_report.format_table(result).splitlines()
    assert head.split() == ["PSNR", "SSIM", "LPIPS", "MAE", "good", "px", "bad", "px"]
    assert unfixed.split()[-3] == "0.2000" and fixed.split()[-3] == "0.0500"
    page = fixing_report.write_fixing_report(
        tmp_path, result, {}, title="toy", settings={}
    ).read_text()
    assert "MAE\u00a0↓" in page and "gain MAE\u00a0↑" in page
    assert "+0.1500" in page and "fixed MAE" in page


def test_which_way_is_better_comes_from_the_metric(monkeypatch):
    assert labels.choose_sort_order("loss_of_detail") == "descending"
    monkeypatch.setitem(
        METRICS, "loss", Metric("loss", "loss", "", measure_mae, unit="%", digits=1)
    )
    assert labels.choose_sort_order("loss_of_detail") == "ascending"
    assert labels.format_label("render_loss") == "render loss (%) ↑"
    assert labels.format_number(0.25, "gain_loss") == "+0.2"
    assert "loss" in Metrics(None).names and "lpips" not in Metrics(None).names
