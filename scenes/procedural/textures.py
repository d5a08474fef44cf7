# Procedural textures: square and periodic, values as displayed (square root of light). Each draw_*
# function takes a numpy Generator first and returns [n, n, 3] float32 in [0, 1].
from __future__ import annotations

import colorsys

import numpy as np

Colour = tuple[float, float, float]
SIDE = 512


def hsv_to_rgb(hue: float, saturation: float, value: float) -> Colour:
    """RGB in [0, 1] of a hue (any real number, period 1), saturation and value in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def draw_noise(
    rng: np.random.Generator,
    slope: float = 1.6,
    stretch: tuple[float, float] = (1.0, 1.0),
    lowest: float = 1.0,
    n: int = SIDE,
) -> np.ndarray:
    """Periodic noise [n, n] with unit deviation and a 1/f^slope spectrum.

    stretch: relative length of features along (v, u); lowest: fewest waves per tile.
    """
    v = np.fft.fftfreq(n, 1 / n)[:, None] * stretch[0]
    u = np.fft.rfftfreq(n, 1 / n)[None, :] * stretch[1]
    f = np.hypot(v, u)
    gain = np.where(f >= lowest, np.maximum(f, 1e-3) ** -slope, 0).astype(np.float32)
    white = rng.standard_normal((n, n), np.float32)
    field = np.fft.irfft2(np.fft.rfft2(white) * gain, s=(n, n))
    return (field / (field.std() + 1e-9)).astype(np.float32)


def make_grid(n: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """(u, v), both [n, n]: texel centres in [0, 1), v downwards."""
    c = (np.arange(n, dtype=np.float32) + 0.5) / n
    return np.meshgrid(c, c)


def map_colours(value: np.ndarray, *colours: Colour) -> np.ndarray:
    """Map values [n, n] in [0, 1] onto a ramp of colours, [n, n, 3]."""
    stops = np.linspace(0, 1, len(colours))
    table = np.asarray(colours, np.float32)
    return np.stack([np.interp(value, stops, table[:, c]) for c in range(3)], -1).astype(np.float32)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 at `low`, 1 at `high`, cubic between and clamped outside; low may exceed high."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: np.ndarray, b, weight: np.ndarray) -> np.ndarray:
    """Picture [n, n, 3] moved towards colour or picture b by weight [n, n]."""
    return a + (np.asarray(b, np.float32) - a) * weight[..., None]


def finish(picture: np.ndarray) -> np.ndarray:
    """The picture as float32, clipped to [0.02, 0.98]."""
    return np.clip(picture, 0.02, 0.98).astype(np.float32)


def draw_wood(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Wood with its grain along u."""
    _, v = make_grid()
    bend = 0.05 * draw_noise(rng, 2.2, (1, 3))
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.integers(5, 10) * (v + bend)))
    fibres = draw_noise(rng, 0.9, (1, 24), 4)
    value = 0.62 + 0.28 * (rings - 0.5) + 0.1 * fibres
    dark = tuple(0.55 * c for c in colour)
    light = tuple(min(1.0, 1.15 * c) for c in colour)
    return finish(map_colours(np.clip(value, 0, 1), dark, colour, light))


def draw_planks(rng: np.random.Generator, colour: Colour, rows: int = 8) -> np.ndarray:
    """Floor boards along u, each with its own tone and part of the wood."""
    board = draw_wood(rng, colour)
    n = SIDE
    out = np.empty_like(board)
    high = n // rows
    for row in range(rows):
        start = int(rng.integers(n))
        for _ in range(2):
            x = (start + np.arange(n // 2)) % n
            y = row * high + np.arange(high)
            dv, du = rng.integers(n, size=2)
            tone = rng.uniform(0.8, 1.12)
            piece = board[(y[:, None] + dv) % n, (x[None] + du) % n] * tone
            edge = np.minimum(np.arange(high), np.arange(high)[::-1])
            ends = np.minimum(np.arange(n // 2), np.arange(n // 2)[::-1])
            gap = np.minimum(edge[:, None], ends[None])
            piece *= (0.45 + 0.55 * smoothstep(gap, -1, 2.5))[..., None]
            out[y[:, None], x[None]] = piece
            start += n // 2
    return finish(out)


def draw_herringbone(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Parquet of short blocks, alternately turned."""
    n, cells = SIDE, 4
    a, b = draw_wood(rng, colour), draw_wood(rng, colour).transpose(1, 0, 2)
    out = np.empty_like(a)
    side = n // cells
    for row in range(cells):
        for column in range(cells):
            tile = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
            along = (row + column) % 2
            out[tile] = np.roll((a, b)[along], rng.integers(n, size=2), (0, 1))[tile]
            strips = np.repeat(rng.uniform(0.82, 1.1, 4), side // 4)
            seam = 0.5 + 0.5 * smoothstep(np.abs((np.arange(side) + 1.5) % (side / 4) - 1.5), 0, 3)
            strips = strips * seam
            out[tile] *= strips[None, :, None] if along else strips[:, None, None]
    return finish(out)


def draw_tiles(
    rng: np.random.Generator, first: Colour, second: Colour, count: int = 4
) -> np.ndarray:
    """Square tiles in two colours with grout."""
    u, v = make_grid()
    i, j = (u * count).astype(int), (v * count).astype(int)
    which = ((i + j) % 2).astype(np.float32)
    out = mix(map_colours(which * 0, first, first), second, which)
    tone = rng.uniform(-0.06, 0.06, (count, count))[j, i]
    veins = np.abs(draw_noise(rng, 1.7, lowest=2))
    out += (tone + 0.05 * draw_noise(rng, 1.2) - 0.14 * smoothstep(veins, 0.12, 0.0))[..., None]
    fu, fv = (u * count) % 1, (v * count) % 1
    edge = np.minimum(np.minimum(fu, 1 - fu), np.minimum(fv, 1 - fv))
    return finish(mix(out, (0.48, 0.46, 0.43), smoothstep(edge, 0.022, 0.01)))


def draw_bricks(rng: np.random.Generator, colour: Colour, rows: int = 12) -> np.ndarray:
    """Running bond with mortar; every brick has its tone, holes and rough edges."""
    n = SIDE
    u, v = make_grid()
    columns = rows // 3
    warp = 0.006 * draw_noise(rng, 1.5, lowest=6)
    y = (v + warp) * rows
    j = np.floor(y).astype(int) % rows
    x = (u + warp.T) * columns + 0.5 * (j % 2)
    i = np.floor(x).astype(int) % columns
    tone = rng.normal(0, 0.055, (rows, columns))[j, i]
    red = rng.normal(0, 0.02, (rows, columns))[j, i]
    fx, fy = x % 1, y % 1
    edge = np.minimum(np.minimum(fx, 1 - fx) * 3, np.minimum(fy, 1 - fy))
    grain = draw_noise(rng, 0.9, n=n)
    out = np.asarray(colour, np.float32) + (tone + 0.06 * grain)[..., None]
    out[..., 0] += red
    out *= (0.8 + 0.2 * smoothstep(fy, 0.0, 0.3) * smoothstep(edge, 0.02, 0.2))[..., None]
    mortar = 0.66 + 0.05 * draw_noise(rng, 0.6)[..., None] + np.zeros(3, np.float32)
    weight = smoothstep(edge + 0.015 * grain, 0.085, 0.05)
    return finish(out * (1 - weight[..., None]) + mortar * weight[..., None])


def draw_cobbles(rng: np.random.Generator, colour: Colour, cells: int = 8) -> np.ndarray:
    """Rounded stones of uneven size: distance to the nearest and second nearest jittered centre."""
    u, v = make_grid()
    jitter = rng.uniform(0.18, 0.82, (cells, cells, 2)).astype(np.float32)
    tones = rng.normal(0, 0.05, (cells, cells)).astype(np.float32)
    i, j = (u * cells).astype(int), (v * cells).astype(int)
    first = np.full(u.shape, 9, np.float32)
    second = first.copy()
    tone = np.zeros_like(first)
    for dj in (-1, 0, 1):
        for di in (-1, 0, 1):
            a, b = (i + di) % cells, (j + dj) % cells
            x = u * cells - (i + di + jitter[b, a, 0])
            y = v * cells - (j + dj + jitter[b, a, 1])
            d = np.hypot(x, y)
            nearer = d < first
            second = np.where(nearer, first, np.minimum(second, d))
            tone = np.where(nearer, tones[b, a], tone)
            first = np.where(nearer, d, first)
    gap = second - first
    out = np.asarray(colour, np.float32) + (tone + 0.05 * draw_noise(rng, 1.0))[..., None]
    out *= (0.72 + 0.28 * smoothstep(gap, 0.0, 0.5))[..., None]
    return finish(
        mix(
            out,
            (0.27, 0.25, 0.22),
            0.75 * smoothstep(gap + 0.02 * draw_noise(rng, 0.7), 0.14, 0.06),
        )
    )


def draw_plaster(rng: np.random.Generator, colour: Colour, strength: float = 1.0) -> np.ndarray:
    """Painted wall: roller texture, faint clouds."""
    value = 0.018 * draw_noise(rng, 0.5, lowest=24) + 0.007 * draw_noise(rng, 1.6, lowest=2)
    return finish(np.asarray(colour, np.float32) + strength * value[..., None])


def draw_wallpaper(rng: np.random.Generator, colour: Colour, style: int) -> np.ndarray:
    """Stripes, a flower grid, trellis or dots on paper."""
    u, v = make_grid()
    out = draw_plaster(rng, colour, 0.8)
    other = np.clip(np.asarray(colour) * rng.uniform(0.62, 0.85), 0, 1)
    accent = np.asarray(hsv_to_rgb(rng.random(), 0.35, rng.uniform(0.45, 0.95)))
    if style == 0:
        wave = np.abs(((u * 8) % 1) - 0.5)
        out = mix(out, other, smoothstep(wave, 0.26, 0.24))
        out = mix(out, accent, smoothstep(np.abs(wave - 0.3), 0.02, 0.012))
    elif style == 1:
        for shift, petals in ((0.0, 5), (0.5, 6)):
            x, y = ((u * 4 + shift) % 1) - 0.5, ((v * 4 + shift) % 1) - 0.5
            rho, angle = np.hypot(x, y), np.arctan2(y, x)
            petal = rho - 0.16 * (0.75 + 0.35 * np.cos(petals * angle + 7 * shift))
            out = mix(out, accent if shift else other, smoothstep(petal, 0.01, -0.01))
            out = mix(out, colour, smoothstep(rho, 0.05, 0.035))
            stem = np.abs(x - 0.08 * np.sin(6 * y))
            out = mix(out, (0.35, 0.45, 0.3), smoothstep(stem, 0.014, 0.006) * (y > 0.15))
    elif style == 2:
        a, b = ((u + v) * 6) % 1, ((u - v) * 6) % 1
        line = np.minimum(np.minimum(a, 1 - a), np.minimum(b, 1 - b))
        out = mix(out, other, smoothstep(line, 0.07, 0.04))
        x, y = ((u * 6) % 1) - 0.5, ((v * 6) % 1) - 0.5
        out = mix(out, accent, smoothstep(np.hypot(x, y), 0.13, 0.1))
    else:
        x = ((u * 8) % 1) - 0.5
        y = ((v * 8 + 0.5 * ((u * 8).astype(int) % 2)) % 1) - 0.5
        out = mix(out, other, smoothstep(np.abs(x) + np.abs(y), 0.3, 0.27))
    return finish(out)


def draw_fabric(rng: np.random.Generator, colour: Colour, style: int) -> np.ndarray:
    """Plain weave, stripes, plaid or a small print."""
    n = SIDE
    u, v = make_grid()
    threads = 96
    over = np.sin(np.pi * threads * u) * np.sin(np.pi * threads * v)
    uneven = rng.normal(0, 1, (2, threads)).astype(np.float32)
    warp = uneven[0][(u * threads).astype(int)] + uneven[1][(v * threads).astype(int)]
    out = np.broadcast_to(np.asarray(colour, np.float32), (n, n, 3)).copy()
    other = np.asarray(hsv_to_rgb(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.3, 0.9)))
    if style == 1:
        out = mix(out, other, smoothstep(np.abs(((u * 6) % 1) - 0.5), 0.2, 0.18))
    elif style == 2:
        for axis in (u, v):
            out = mix(out, other, 0.5 * smoothstep(np.abs(((axis * 4) % 1) - 0.5), 0.2, 0.18))
            out = mix(
                out, (0.9, 0.88, 0.8), 0.6 * smoothstep(np.abs(((axis * 4) % 1) - 0.1), 0.03, 0.02)
            )
    elif style == 3:
        x, y = ((u * 7) % 1) - 0.5, ((v * 7 + 0.5 * ((u * 7).astype(int) % 2)) % 1) - 0.5
        out = mix(out, other, smoothstep(np.hypot(x, y), 0.24, 0.2))
    out *= (1 + 0.07 * over + 0.05 * warp + 0.05 * draw_noise(rng, 0.8))[..., None]
    return finish(out)


def draw_carpet(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Speckled pile."""
    value = 0.5 + 0.2 * draw_noise(rng, 0.45, lowest=16) + 0.06 * draw_noise(rng, 1.8)
    return finish(
        map_colours(
            np.clip(value, 0, 1),
            tuple(0.6 * c for c in colour),
            colour,
            tuple(min(1.0, 1.25 * c) for c in colour),
        )
    )


def draw_rug(rng: np.random.Generator) -> np.ndarray:
    """A woven rug with borders, fringes and a mirrored ornament; meant to fit one face."""
    u, v = make_grid()
    x, y = np.abs(u - 0.5) * 2, np.abs(v - 0.5) * 2
    hue = rng.random()
    field = hsv_to_rgb(hue, rng.uniform(0.3, 0.55), rng.uniform(0.3, 0.55))
    second = hsv_to_rgb(hue + rng.uniform(0.3, 0.6), 0.4, 0.6)
    cream = (0.85, 0.8, 0.68)
    out = np.broadcast_to(np.asarray(field, np.float32), (*u.shape, 3)).copy()
    waves = np.zeros_like(u)
    for _ in range(5):
        a, b = rng.integers(2, 9, 2)
        waves += np.cos(np.pi * a * x + rng.uniform(0, 6)) * np.cos(np.pi * b * y)
    steps = np.round(waves * 1.6) / 1.6
    out = mix(out, second, (np.abs(steps) > 1.2).astype(np.float32))
    out = mix(out, cream, (np.abs(steps - 0.62) < 0.2).astype(np.float32))
    medallion = np.maximum(x * 1.2, y * 1.2) + 0.4 * np.minimum(x, y)
    out = mix(out, cream, smoothstep(np.abs(medallion - 0.55), 0.03, 0.02))
    out = mix(out, second, smoothstep(np.abs(medallion - 0.47), 0.02, 0.012))
    rim = np.maximum(x, y)
    zigzag = np.abs(((u + v) * 16) % 1 - 0.5)
    out = mix(out, second, (rim > 0.8).astype(np.float32))
    out = mix(out, cream, ((rim > 0.83) & (rim < 0.93) & (zigzag > 0.25)).astype(np.float32))
    out = mix(out, (0.15, 0.12, 0.12), (np.abs(rim - 0.8) < 0.012).astype(np.float32))
    out *= (1 + 0.09 * draw_noise(rng, 0.3, lowest=40) + 0.05 * np.sin(np.pi * 160 * v))[..., None]
    return finish(out)


def draw_stone(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Rough stone with pits."""
    value = 0.04 * draw_noise(rng, 0.8, lowest=3) + 0.02 * draw_noise(rng, 1.8)
    pits = smoothstep(draw_noise(rng, 1.0, lowest=12), 1.3, 2.0)
    return finish(np.asarray(colour, np.float32) + (value - 0.12 * pits)[..., None])


def draw_grass(rng: np.random.Generator) -> np.ndarray:
    """Short grass."""
    value = 0.5 + 0.16 * draw_noise(rng, 0.5, (0.6, 1), 8) + 0.12 * draw_noise(rng, 1.6)
    return finish(
        map_colours(np.clip(value, 0, 1), (0.16, 0.25, 0.1), (0.33, 0.45, 0.2), (0.6, 0.62, 0.34))
    )


def draw_foliage(rng: np.random.Generator, hue: float) -> np.ndarray:
    """Overlapping small leaves, darker below."""
    n, out = SIDE // 2, np.full((SIDE // 2, SIDE // 2, 3), 0.1, np.float32)
    out[:] = hsv_to_rgb(hue, 0.6, 0.2)
    y0, x0 = np.mgrid[-9:10, -9:10].astype(np.float32)
    for k in range(900):
        angle, long, value = rng.uniform(0, np.pi), rng.uniform(5, 9), 0.2 + 0.4 * k / 900
        a = x0 * np.cos(angle) + y0 * np.sin(angle)
        b = -x0 * np.sin(angle) + y0 * np.cos(angle)
        inside = np.abs(b) < 0.45 * long * (1 - (a / long) ** 2)
        colour = np.asarray(hsv_to_rgb(hue + rng.normal(0, 0.025), rng.uniform(0.35, 0.55), value))
        cy, cx = rng.integers(n, size=2)
        rows, columns = (cy + np.arange(-9, 10)) % n, (cx + np.arange(-9, 10)) % n
        patch = out[rows[:, None], columns[None]]
        shaded = colour * (1 - 0.25 * smoothstep(np.abs(b), 1.0, 0.3))[..., None]
        out[rows[:, None], columns[None]] = np.where(inside[..., None], shaded, patch)
    return finish(out)


def draw_leaf(rng: np.random.Generator, hue: float) -> np.ndarray:
    """One big leaf with veins along u; meant to fit one face."""
    u, v = make_grid(128)
    rib = np.abs(v - 0.5)
    veins = np.abs(((u * 9 - rib * 6) % 1) - 0.5)
    out = np.broadcast_to(np.asarray(hsv_to_rgb(hue, 0.5, 0.46), np.float32), (128, 128, 3)).copy()
    out *= (1 + 0.08 * draw_noise(rng, 1.2, n=128))[..., None]
    out = mix(out, hsv_to_rgb(hue - 0.02, 0.4, 0.6), 0.6 * smoothstep(veins, 0.1, 0.03))
    return finish(mix(out, hsv_to_rgb(hue - 0.03, 0.35, 0.66), smoothstep(rib, 0.03, 0.015)))


def write_text(
    rng: np.random.Generator,
    picture: np.ndarray,
    box: tuple[float, float, float, float],
    lines: int,
    ink: Colour,
) -> None:
    """Draw rows of invented letters into the box (left, top, right, bottom) in [0, 1], in place."""
    n = len(picture)
    left, top, right, bottom = (round(c * n) for c in box)
    high = max((bottom - top) // max(lines, 1), 4)
    unit = max(high // 8, 1)
    for line in range(lines):
        x, y = left, top + line * high
        end = right if line < lines - 1 else left + int((right - left) * rng.uniform(0.4, 0.9))
        while x + 4 * unit < end:
            if rng.random() < 0.16:
                x += 3 * unit
                continue
            # A 3x5 glyph: a stem or two, and a few bars.
            glyph = np.zeros((5, 3), bool)
            glyph[:, rng.choice([0, 0, 1])] = True
            glyph[:, 2] |= rng.random() < 0.4
            for bar in (0, 2, 4):
                glyph[bar] |= rng.random() < 0.5
            block = np.kron(glyph, np.ones((unit, unit), bool))
            area = picture[y : y + block.shape[0], x : x + block.shape[1]]
            area[block[: area.shape[0], : area.shape[1]]] = ink
            x += 4 * unit


def draw_painting(rng: np.random.Generator, style: int) -> np.ndarray:
    """A framed picture: landscape, abstract blocks, flowers, a poster with text, or rings."""
    n = SIDE // 2
    u, v = make_grid(n)
    hue = rng.random()
    if style == 0:
        out = map_colours(
            v, hsv_to_rgb(hue, 0.5, 0.75), hsv_to_rgb(hue + 0.08, 0.25, 0.95), (0.98, 0.9, 0.75)
        )
        sun = np.hypot(u - rng.uniform(0.2, 0.8), v - rng.uniform(0.2, 0.4))
        out = mix(out, (1.0, 0.95, 0.8), smoothstep(sun, 0.09, 0.07))
        for k in range(5):
            line = 0.42 + 0.11 * k
            profile = 0.05 * draw_noise(rng, 1.9, (1, 1), n=n)[0]
            shade = hsv_to_rgb(hue + 0.35 + 0.04 * k, 0.35 + 0.07 * k, 0.75 - 0.12 * k)
            out = mix(
                out, shade, smoothstep(v - line - profile[None] * (1.5 - 0.2 * k), -0.004, 0.004)
            )
        out += 0.03 * draw_noise(rng, 0.8, (1, 4), n=n)[..., None]
    elif style == 1:
        out = np.full((n, n, 3), 0.93, np.float32)
        cuts = [np.sort(np.r_[0, rng.uniform(0.08, 0.92, 5), 1]) for _ in range(2)]
        for a, b in zip(cuts[0][:-1], cuts[0][1:], strict=True):
            for c, d in zip(cuts[1][:-1], cuts[1][1:], strict=True):
                inside = (u > a) & (u < b) & (v > c) & (v < d)
                if rng.random() < 0.6:
                    out[inside] = hsv_to_rgb(
                        hue + rng.choice([0, 0.1, 0.5]),
                        rng.uniform(0.1, 0.8),
                        rng.uniform(0.35, 0.95),
                    )
        for cut, axis in ((cuts[0], u), (cuts[1], v)):
            for c in cut:
                out[np.abs(axis - c) < 0.009] = 0.1
    elif style == 2:
        out = map_colours(v, hsv_to_rgb(hue, 0.25, 0.9), hsv_to_rgb(hue, 0.35, 0.6))
        out = mix(
            out, hsv_to_rgb(hue + 0.4, 0.4, 0.4), smoothstep(v + 0.02 * np.sin(u * 9), 0.7, 0.72)
        )
        vase = np.abs(u - 0.5) - 0.09 - 0.05 * np.sin((v - 0.55) * 12)
        out = mix(
            out,
            hsv_to_rgb(hue + 0.5, 0.5, 0.65),
            smoothstep(vase, 0.006, -0.006) * (v > 0.55) * (v < 0.86),
        )
        for _ in range(14):
            x, y = rng.normal(0.5, 0.13), rng.normal(0.36, 0.1)
            line = np.abs(u - (0.5 + (x - 0.5) * (0.58 - v) / (0.58 - y + 1e-3)))
            out = mix(out, (0.2, 0.36, 0.18), smoothstep(line, 0.008, 0.004) * (v > y) * (v < 0.57))
            d, angle = np.hypot(u - x, v - y), np.arctan2(v - y, u - x)
            flower = d - 0.05 * (0.8 + 0.3 * np.cos(rng.integers(4, 8) * angle))
            out = mix(out, hsv_to_rgb(rng.random(), 0.6, 0.9), smoothstep(flower, 0.004, -0.004))
            out = mix(out, (0.95, 0.8, 0.3), smoothstep(d, 0.016, 0.012))
        out += 0.025 * draw_noise(rng, 0.7, n=n)[..., None]
    elif style == 3:
        out = map_colours(v, hsv_to_rgb(hue, 0.6, 0.8), hsv_to_rgb(hue + 0.12, 0.7, 0.45))
        for _ in range(4):
            x, y, r = rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.7), rng.uniform(0.08, 0.25)
            d = np.hypot(u - x, v - y)
            out = mix(out, hsv_to_rgb(rng.random(), 0.6, 0.9), 0.85 * smoothstep(d, r, r - 0.008))
        write_text(rng, out, (0.08, 0.05, 0.95, 0.2), 1, (0.97, 0.95, 0.9))
        write_text(rng, out, (0.08, 0.8, 0.92, 0.96), 4, (0.97, 0.95, 0.9))
    else:
        out = np.full((n, n, 3), 0.9, np.float32) * np.asarray(
            hsv_to_rgb(hue, 0.1, 1.0), np.float32
        )
        for _ in range(9):
            x, y, r = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.06, 0.3)
            d = np.hypot(u - x, v - y)
            ring = smoothstep(np.abs(d - r), 0.025, 0.02)
            out = mix(
                out,
                hsv_to_rgb(hue + rng.choice([0, 0.08, 0.5, 0.58]), 0.7, rng.uniform(0.3, 0.9)),
                ring,
            )
        out += 0.02 * draw_noise(rng, 0.7, n=n)[..., None]
    mount = np.maximum(np.abs(u - 0.5), np.abs(v - 0.5))
    out = mix(out, (0.93, 0.92, 0.88), smoothstep(mount, 0.43, 0.434))
    return finish(out)


def draw_cover(rng: np.random.Generator) -> np.ndarray:
    """The print of a book or parcel in grey tones, coloured by the material's tint."""
    n = SIDE // 2
    out = np.full((n, n, 3), 0.86, np.float32) + 0.03 * draw_noise(rng, 1.0, n=n)[..., None]
    u, v = make_grid(n)
    dark = rng.random() < 0.5
    ink: Colour = (0.25, 0.24, 0.22) if dark else (0.98, 0.97, 0.9)
    band = rng.uniform(0.15, 0.3)
    out = mix(out, ink, 0.8 * smoothstep(np.abs(v - band), 0.03, 0.025))
    out = mix(out, ink, 0.8 * smoothstep(np.abs(v - 1 + band), 0.015, 0.01))
    write_text(rng, out, (0.15, band + 0.06, 0.9, band + 0.24), 1, ink)
    if rng.random() < 0.6:
        d = np.hypot(u - 0.5, v - 0.66)
        out = mix(out, ink, 0.7 * smoothstep(np.abs(d - 0.1), 0.02, 0.015))
    else:
        write_text(rng, out, (0.15, 0.52, 0.88, 0.78), 4, ink)
    return finish(out)


def draw_print_page(rng: np.random.Generator) -> np.ndarray:
    """A page of text with a heading and a figure."""
    out = np.full((SIDE, SIDE, 3), 0.94, np.float32)
    write_text(rng, out, (0.1, 0.06, 0.85, 0.14), 1, (0.15, 0.15, 0.18))
    write_text(rng, out, (0.1, 0.18, 0.92, 0.5), 12, (0.25, 0.25, 0.27))
    picture = draw_painting(rng, int(rng.integers(5)))
    out[280:440, 60:300] = picture[48:208, 8:248]
    write_text(rng, out, (0.62, 0.55, 0.92, 0.86), 11, (0.25, 0.25, 0.27))
    return finish(out)


def draw_cardboard(rng: np.random.Generator) -> np.ndarray:
    """Cardboard with tape, print and a label; meant to fit one face."""
    out = draw_stone(rng, (0.66, 0.53, 0.38)) * 0.4 + 0.6 * np.asarray(
        (0.66, 0.53, 0.38), np.float32
    )
    u, _ = make_grid()
    out = mix(out, (0.8, 0.74, 0.6), 0.8 * smoothstep(np.abs(u - 0.5), 0.07, 0.065))
    write_text(rng, out, (0.08, 0.62, 0.42, 0.9), 4, (0.22, 0.17, 0.13))
    out[60:150, 320:450] = 0.92
    write_text(rng, out, (0.64, 0.14, 0.86, 0.27), 5, (0.15, 0.15, 0.15))
    return finish(out)


def draw_glaze(rng: np.random.Generator, colour: Colour, style: int) -> np.ndarray:
    """Ceramic: plain speckles, painted bands, or a drip of a second glaze."""
    u, v = make_grid()
    other = hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.9))
    out = np.asarray(colour, np.float32) + 0.03 * draw_noise(rng, 1.4)[..., None]
    if style == 1:
        out = mix(out, other, smoothstep(np.abs(((v * 4) % 1) - 0.5), 0.12, 0.1))
        wave = np.abs(((v * 4) % 1) - 0.12 - 0.05 * np.sin(2 * np.pi * 12 * u))
        out = mix(out, other, smoothstep(wave, 0.035, 0.02))
        x, y = ((u * 8) % 1) - 0.5, ((v * 4) % 1) - 0.5
        out = mix(out, colour, smoothstep(np.hypot(x, y * 2), 0.13, 0.1))
    elif style == 2:
        edge = v + 0.06 * draw_noise(rng, 1.8, (3, 1))
        out = mix(out, other, smoothstep(np.abs((edge * 2) % 1 - 0.5), 0.22, 0.2))
    speckle = smoothstep(draw_noise(rng, 0.5, lowest=20), 2.0, 2.4)
    return finish(out - 0.25 * speckle[..., None])


def draw_skin(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Fruit: freckles and a blush."""
    blush = 0.1 * draw_noise(rng, 2.0)
    out = np.asarray(colour, np.float32) * (1 + np.stack([blush * 0.4, blush, blush * 0.5], -1))
    return finish(out + 0.1 * smoothstep(draw_noise(rng, 0.7, lowest=16), 1.6, 2.2)[..., None])


def draw_ball(rng: np.random.Generator, style: int) -> np.ndarray:
    """A toy ball: beach stripes, stars or a chequered band; meant to fit."""
    u, v = make_grid()
    hue = rng.random()
    palette = [hsv_to_rgb(hue + k / 3, 0.55, 0.66) for k in range(3)] + [(0.95, 0.95, 0.92)]
    if style == 0:
        which = (u * 8).astype(int) % 4
        out = np.asarray(palette, np.float32)[which]
        out = mix(out, palette[3], smoothstep(np.abs(v - 0.5), 0.42, 0.43))
    elif style == 1:
        out = np.broadcast_to(np.asarray(palette[0], np.float32), (SIDE, SIDE, 3)).copy()
        x, y = ((u * 8) % 1) - 0.5, ((v * 4 + 0.5 * ((u * 8).astype(int) % 2)) % 1) - 0.5
        rho, angle = np.hypot(x, y), np.arctan2(y, x)
        star = rho - 0.2 * (0.8 + 0.4 * np.cos(5 * angle))
        out = mix(out, palette[3], smoothstep(star, 0.02, 0.0))
    else:
        out = np.broadcast_to(np.asarray(palette[3], np.float32), (SIDE, SIDE, 3)).copy()
        band = (((u * 16).astype(int) + (v * 16).astype(int)) % 2) * (np.abs(v - 0.5) < 0.19)
        out = mix(out, palette[1], band.astype(np.float32))
        out = mix(out, palette[0], smoothstep(np.abs(np.abs(v - 0.5) - 0.24), 0.04, 0.035))
    return finish(out + 0.015 * draw_noise(rng, 0.8)[..., None])


def draw_screen(rng: np.random.Generator) -> np.ndarray:
    """A lit display: windows with text and a chart."""
    out = draw_painting(rng, 0).repeat(2, 0).repeat(2, 1)
    for _ in range(3):
        x, y = rng.integers(20, 230, 2)
        out[y : y + 200, x : x + 240] = (0.95, 0.95, 0.97)
        out[y : y + 16, x : x + 240] = hsv_to_rgb(rng.random(), 0.5, 0.6)
        box = ((x + 12) / SIDE, (y + 28) / SIDE, (x + 230) / SIDE, (y + 190) / SIDE)
        write_text(rng, out, box, 9, (0.2, 0.2, 0.25))
    return finish(out)


def draw_metal(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Brushed metal."""
    value = 0.03 * draw_noise(rng, 0.8, (1, 20)) + 0.02 * draw_noise(rng, 1.6)
    return finish(np.asarray(colour, np.float32) + value[..., None])


def draw_roof(rng: np.random.Generator, colour: Colour) -> np.ndarray:
    """Rows of round-ended tiles."""
    u, v = make_grid()
    rows, columns = 8, 10
    y = v * rows
    j = y.astype(int) % rows
    x = u * columns + 0.5 * (j % 2)
    i = np.floor(x).astype(int) % columns
    fx, fy = x % 1 - 0.5, y % 1
    tone = rng.normal(0, 0.07, (rows, columns))[j, i] + 0.05 * draw_noise(rng, 1.0)
    out = np.asarray(colour, np.float32) + tone[..., None]
    shade = 0.45 + 0.55 * smoothstep(fy - 1.4 * fx**2, -0.28, 0.1)
    return finish(out * (shade * (1 - 0.5 * smoothstep(np.abs(fx), 0.42, 0.5)))[..., None])


def draw_sky(rng: np.random.Generator, sun: np.ndarray, strength: float) -> np.ndarray:
    """Radiance [256, 1024, 3] of the whole sphere, zenith first: clouds, haze, hills."""
    rows, columns = 256, 1024
    z = np.cos((np.arange(rows) + 0.5) / rows * np.pi)[:, None]
    angle = ((np.arange(columns) + 0.5) / columns - 0.5) * 2 * np.pi
    up = np.clip(z, 0, 1)
    zenith, horizon = np.array([0.16, 0.34, 0.78]), np.array([0.72, 0.82, 0.95])
    out = horizon + (zenith - horizon) * (up**0.45)[..., None] + np.zeros((rows, columns, 1))
    # Clouds lie on a plane above: look their noise up where the direction meets it.
    field = draw_noise(rng, 1.75, n=1024)
    x = np.cos(angle)[None] * np.sqrt(1 - z**2) / (up + 0.12)
    y = np.sin(angle)[None] * np.sqrt(1 - z**2) / (up + 0.12)
    shift = rng.integers(1024, size=2)
    value = field[(y * 110 + shift[0]).astype(int) % 1024, (x * 110 + shift[1]).astype(int) % 1024]
    cover_ = smoothstep(value, *((lambda low: (low, low + 1.1))(rng.uniform(-0.3, 0.9))))
    out += (np.array([1.05, 1.04, 1.02]) - out) * (cover_ * smoothstep(up, 0.02, 0.2))[..., None]
    towards = (
        np.stack(
            [
                np.cos(angle)[None] * np.sqrt(1 - z**2),
                np.sin(angle)[None] * np.sqrt(1 - z**2),
                z + 0 * angle,
            ],
            -1,
        )
        @ sun
    )
    out += (np.clip(towards, 0, 1) ** 64)[..., None] * np.array([0.9, 0.8, 0.6])
    for distance, tone in ((0.0, (0.45, 0.55, 0.62)), (1.0, (0.3, 0.4, 0.33))):
        hills = 0.07 - 0.03 * distance + 0.02 * draw_noise(rng, 1.7, n=1024)[0][None]
        weight = smoothstep(hills - z, -0.004, 0.004)
        out += (np.array(tone) - out) * weight[..., None]
    return (out * strength).astype(np.float32)


def build_levels(picture: np.ndarray) -> np.ndarray:
    """All mip levels of a picture, [.., 4] uint8, finest first, averaged in linear light."""
    light = picture[::-1].astype(np.float32) ** 2  # v upwards
    parts = []
    while True:
        n = len(light)
        flat = np.zeros((n * n, 4), np.uint8)
        flat[:, :3] = np.sqrt(light.reshape(-1, 3)) * 255 + 0.5
        parts.append(flat)
        if n == 1:
            return np.concatenate(parts)
        light = (light[::2, ::2] + light[1::2, ::2] + light[::2, 1::2] + light[1::2, 1::2]) / 4
