# Curves, usually over training steps, as inline SVG; colours come from the page's style sheet, so
# that a plot is readable in light and dark mode.
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 56, 30, 14, 52  # margins around the axes

MOST_POINTS = 500  # of a curve; longer ones are thinned evenly

Curve = Sequence[tuple[float, float]]


def draw_curves(curves: Mapping[str, Curve], unit: str = "", axis: str = "step") -> Markup:
    """An SVG with a line per curve [(step, value), ...]; non-finite values are gaps.

    Line i has the classes `curve` and `c<i>`; points show their step and value on hover. Returns an
    empty string if no value is finite.
    """
    curves = {name: _thin(curve) for name, curve in curves.items()}
    finite = [p for curve in curves.values() for p in curve if all(map(math.isfinite, p))]
    if not finite:
        return Markup("")
    xs, ys = zip(*finite, strict=True)
    x_ticks, y_ticks = choose_ticks(min(xs), max(xs), 6), choose_ticks(min(ys), max(ys), 5)
    if all(x == round(x) for x in xs):  # no ticks between steps
        x_ticks = [tick for tick in x_ticks if tick == round(tick)]
    x_low, x_high = min(xs), max(max(xs), min(xs) + 1e-9)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x(step: float) -> float:
        return LEFT + (step - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (y_high - value) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in y_ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" class="end">{tick:g}</text>')
    for tick in x_ticks:
        if x_low <= tick <= x_high:
            label = f"{tick:,.10g}"
            parts.append(f'<text x="{x(tick):.1f}" y="{HEIGHT - BOTTOM + 21}">{label}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}">{escape(axis)}</text>')
    for i, (name, curve) in enumerate(curves.items()):
        parts.append(f'<path class="curve c{i}" d="{_line(curve, x, y)}"/>')
        points = [p for p in curve if all(map(math.isfinite, p))]
        radius = 3.5 if len(points) <= 40 else 1.5
        for step, value in points:
            tip = escape(f"{name}: {value:.4g}{unit and ' ' + unit} at {axis} {step:,.10g}")
            parts.append(
                f'<circle class="c{i}" cx="{x(step):.1f}" cy="{y(value):.1f}" r="{radius}">'
                f"<title>{tip}</title></circle>"
            )
    label = escape(f"{', '.join(curves)} by {axis}")
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )


def choose_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that span low to high."""
    if high <= low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _thin(curve: Curve) -> Curve:
    stride = -(-len(curve) // MOST_POINTS) or 1
    return curve[::-1][::stride][::-1]  # keeps the last point, the one people look for


def _line(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    path, pen = [], "M"
    for step, value in curve:
        if math.isfinite(step) and math.isfinite(value):
            path.append(f"{pen}{x(step):.1f} {y(value):.1f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(path)
