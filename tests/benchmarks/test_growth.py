# Exponents, fitted lines and what is written of them.
import sys

import pytest
import torch

from benchmarks.speed import growth


def test_the_exponent_of_powers():
    x = [1.0, 2.0, 4.0, 8.0]
    for power in (0.0, 1.0, 2.0):
        assert growth.exponent(x, [3 * a**power for a in x]) == pytest.approx(power, abs=1e-9)
    assert growth.exponent([0.0, *x], [9.0, *x]) == pytest.approx(1)  # 0 has no logarithm
    assert growth.exponent([0.0, 1.0], [1.0, 2.0]) is None


def test_a_line_and_how_far_off_it_is():
    fit = growth.fit_line([0.0, 1.0, 2.0, 4.0], [2.0, 5.0, 8.0, 14.0])
    assert (fit["fixed"], fit["each"]) == pytest.approx((2, 3))
    assert fit["deviation"] == pytest.approx(0, abs=1e-9)
    assert growth.fit_line([1.0, 2.0, 3.0], [1.0, 4.0, 9.0])["deviation"] > 0.1
    assert growth.fit_line([1.0], [7.0]) == {"fixed": 7.0, "each": 0.0, "deviation": 0.0}


def test_widths_need_as_many_tiles_as_they_are_called():
    from fixers.tiling import cover

    for count in growth.CURVES["tiles"].at:
        columns = (32 + 224 * int(count)) // 16
        assert len(cover(12, columns, (12, 16))) == count
        assert len(cover(12, columns + 1, (12, 16))) == count + 1
    for megapixels in growth.CURVES["pixels"].at:
        width, height = growth.size_of(megapixels)
        assert width * height == pytest.approx(1e6 * megapixels)


def test_a_curve_is_told_and_drawn(tmp_path):
    points = [{"x": x, "ms": 10 * x, "units": x, "memory_mb": 700 + x} for x in (1.0, 2.0, 4.0)]
    curves = {"views": growth.fit_curve(growth.CURVES["views"], points)}
    row = growth.format_table(curves).splitlines()[2]
    assert "| 1 2 4 views | 10 20 40 | 1 2 4 | 1.00 |" in row
    assert "| 0% | 701 702 704 | +1.0 |" in row
    growth.draw(curves, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 5000


def test_a_point_is_measured(monkeypatch):
    counts = []

    def curve(x, options):
        counts.append(x)
        return lambda: sum(range(1000))

    own = growth.Curve("nothing", "things", (1, 2), curve)
    monkeypatch.setitem(growth.CURVES, "nothing", own)
    monkeypatch.setattr(growth, "ENOUGH", 1e-9)
    point = growth.measure("nothing", 2, growth.Options(threads=torch.get_num_threads()))
    assert counts == [1, 2]  # warmed up at the smallest
    assert point["x"] == 2 and point["units"] > 0 and point["memory_mb"] > 50


def test_unknown_curves_are_told(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["growth", "--only", "clouds"])
    with pytest.raises(ValueError, match="'clouds': tiles, views, references"):
        growth.main()
