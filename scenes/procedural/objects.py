# Furniture and other objects, each added to a Builder around the current frame's origin, on z = 0.
# Furniture faces +y, its back at -y; sizes are arguments or random.
from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from scenes.procedural.builder import Builder, tilt, turn_z
from scenes.procedural.palette import Palette
from scenes.procedural.raycaster import LEAF


def add_table(b: Builder, p: Palette, width: float, depth: float, height: float) -> None:
    """A rectangular table with four legs; width (x), depth (y) and height in metres."""
    top = p.pick_wood()
    legs = top if b.rng.random() < 0.6 else p.iron
    b.box((0, 0, height - 0.02), (width, depth, 0.04), top, 0.008)
    style = b.rng.random()
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (width / 2 - 0.06), sy * (depth / 2 - 0.06)
            if style < 0.5:
                b.box((x, y, (height - 0.04) / 2), (0.06, 0.06, height - 0.04), legs)
            else:
                b.rod((x * 1.02, y * 1.02, 0), (x * 0.9, y * 0.9, height - 0.04), 0.017, legs, 0.03)
    if style < 0.5:
        for sy in (-1, 1):
            y = sy * (depth / 2 - 0.06)
            b.box((0, y, height - 0.08), (width - 0.18, 0.025, 0.08), top)


def add_round_table(b: Builder, p: Palette, radius: float, height: float) -> None:
    """A round table on a turned foot; radius and height in metres."""
    top = p.pick_wood()
    b.rod((0, 0, height - 0.035), (0, 0, height), radius, top)
    foot = [(0.2, 0), (0.19, 0.025), (0.05, 0.08), (0.035, 0.2), (0.06, 0.32), (0.035, 0.5)]
    scale = (height - 0.035) / 0.66
    b.lathe([(r * max(radius / 0.5, 0.6), z * scale) for r, z in [*foot, (0.09, 0.66)]], top)


def add_chair(b: Builder, p: Palette, seat: int | None = None) -> None:
    """A chair of 0.9 m with slats or a padded back; seat: material, None picks a cloth."""
    wood = p.pick_wood()
    seat = p.pick_cloth() if seat is None else seat
    for sx in (-1, 1):
        b.rod((sx * 0.2, 0.2, 0), (sx * 0.18, 0.17, 0.43), 0.015, wood, 0.02)
        b.rod((sx * 0.2, -0.24, 0), (sx * 0.18, -0.19, 0.45), 0.015, wood, 0.02)
        b.rod((sx * 0.18, -0.19, 0.45), (sx * 0.17, -0.26, 0.9), 0.02, wood, 0.015)
        b.rod((sx * 0.19, 0.18, 0.2), (sx * 0.19, -0.21, 0.2), 0.01, wood)
    b.box((0, -0.01, 0.45), (0.43, 0.42, 0.05), seat, 0.022)
    lean = tilt(0, 0.155)
    if b.rng.random() < 0.5:
        for z in (0.6, 0.72, 0.84):
            b.box((0, -0.19 - (z - 0.45) * 0.155, z), (0.34, 0.015, 0.06), wood, 0.006, lean)
    else:
        b.box((0, -0.235, 0.74), (0.36, 0.03, 0.28), seat, 0.014, lean)


def add_armchair(b: Builder, p: Palette, width: float = 0.85) -> None:
    """A sofa for one; width in metres."""
    add_sofa(b, p, width)


def add_sofa(b: Builder, p: Palette, width: float) -> None:
    """A sofa with cushions, one seat per 0.65 m of its width."""
    cloth, wood = p.upholstery, p.pick_wood()
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (width / 2 - 0.08), sy * 0.34
            b.rod((x, y, 0), (x, y, 0.12), 0.02, wood, 0.03)
        b.box((sx * (width / 2 - 0.09), 0, 0.36), (0.18, 0.86, 0.5), cloth, 0.07)
    b.box((0, 0.0, 0.2), (width - 0.2, 0.84, 0.18), cloth, 0.03)
    b.box((0, -0.36, 0.48), (width - 0.1, 0.18, 0.72), cloth, 0.08)
    seats = max(1, round((width - 0.36) / 0.65))
    step = (width - 0.36) / seats
    for k in range(seats):
        x = -width / 2 + 0.18 + (k + 0.5) * step
        b.box((x, 0.06, 0.37), (step - 0.01, 0.68, 0.17), cloth, 0.06)
        b.box((x, -0.22, 0.6), (step - 0.02, 0.17, 0.36), cloth, 0.075, tilt(0, 0.2))
    for k in range(b.rng.integers(1, seats + 2)):
        cushion = p.pick_cloth()
        side = (-1) ** k
        R = turn_z(side * 0.25) @ tilt(0, 0.35)
        x = side * (width / 2 - 0.36 - 0.28 * (k // 2))
        b.box((x, -0.02, 0.62), (0.4, 0.13, 0.38), cushion, 0.06, R)
    if b.rng.random() < 0.5:
        throw = p.pick_cloth()
        b.box((b.rng.choice([-1, 1]) * width / 4, 0.1, 0.468), (0.45, 0.64, 0.02), throw, 0.009)


def add_bed(b: Builder, p: Palette, width: float, length: float = 2.0) -> None:
    """A bed with its head at -y, centred on the origin; width and length in metres."""
    wood, blanket = p.pick_wood(), p.pick_cloth()
    b.box((0, 0, 0.2), (width, length, 0.16), wood, 0.01)
    for sx in (-1, 1):
        for sy in (-1, 1):
            b.box(
                (sx * (width / 2 - 0.06), sy * (length / 2 - 0.06), 0.06), (0.08, 0.08, 0.12), wood
            )
    b.box((0, -length / 2 - 0.03, 0.5), (width + 0.06, 0.06, 1.0), wood, 0.02)
    b.box((0, 0, 0.38), (width - 0.04, length - 0.04, 0.22), p.linen, 0.06)
    b.box((0, length * 0.14, 0.42), (width + 0.04, length * 0.72, 0.22), blanket, 0.07)
    b.box((0, length * 0.36, 0.545), (width + 0.06, 0.45, 0.03), p.pick_cloth(), 0.012)
    count = 2 if width > 1.2 else 1
    for k in range(count):
        x = (k - (count - 1) / 2) * width * 0.46
        R = turn_z(b.rng.normal(0, 0.06)) @ tilt(0, 0.25)
        b.box((x, -length / 2 + 0.3, 0.58), (width / count * 0.8, 0.42, 0.14), p.linen, 0.065, R)
    if b.rng.random() < 0.7:
        R = turn_z(0.2) @ tilt(0, 0.5)
        b.box((0.05, -length / 2 + 0.52, 0.66), (0.4, 0.12, 0.36), p.pick_cloth(), 0.055, R)


def add_book_row(b: Builder, p: Palette, length: float, height: float, depth: float = 0.18) -> None:
    """Upright books along x from 0, spines towards +y."""
    x = 0.0
    while True:
        thick = b.rng.uniform(0.018, 0.05)
        if x + thick > length:
            return
        tall = min(b.rng.uniform(0.7, 1.0) * 0.27, height * 0.95)
        deep = depth * b.rng.uniform(0.8, 1.0)
        cover = p.pick_book()
        b.box(
            (x + thick / 2, deep / 2 - depth / 2, tall / 2),
            (thick - 0.001, deep, tall),
            cover,
            0.002,
        )
        x += thick
        if b.rng.random() < 0.04:
            x += 0.06


def add_book_stack(b: Builder, p: Palette, count: int) -> None:
    """A pile of `count` books, covers and pages."""
    z = 0.0
    for _ in range(count):
        thick = b.rng.uniform(0.018, 0.045)
        w, d = b.rng.uniform(0.13, 0.19), b.rng.uniform(0.19, 0.26)
        R = turn_z(b.rng.normal(0, 0.2))
        cover = p.pick_book()
        b.box((0, 0, z + thick / 2), (w - 0.006, d - 0.008, thick - 0.006), p.paper, 0, R)
        b.box((0, 0, z + 0.0015), (w, d, 0.003), cover, 0, R)
        b.box((0, 0, z + thick - 0.0015), (w, d, 0.003), cover, 0, R)
        spine = R @ np.array([-w / 2 + 0.0015, 0, z + thick / 2])
        b.box(spine, (0.003, d, thick), cover, 0, R)
        z += thick


def add_bookshelf(b: Builder, p: Palette, width: float, height: float, depth: float = 0.3) -> None:
    """A shelf of books and ornaments, open towards +y; sizes in metres."""
    wood = p.pick_wood()
    for sx in (-1, 1):
        b.box((sx * (width / 2 - 0.012), 0, height / 2), (0.024, depth, height), wood)
    b.box((0, -depth / 2 + 0.006, height / 2), (width - 0.048, 0.012, height), wood)
    shelves = max(2, round(height / 0.36))
    gap = (height - 0.06) / shelves
    for k in range(shelves + 1):
        z = 0.04 + k * gap
        b.box((0, 0, z), (width - 0.048, depth - 0.002, 0.022), wood)
        if k == shelves:
            break
        inner = width - 0.07
        split = b.rng.uniform(0.35, 0.9) * inner
        with b.at(-inner / 2, 0, z + 0.011):
            add_book_row(b, p, split, gap - 0.03)
            if inner - split > 0.2:
                with b.at((split + inner) / 2 + 0.02, 0.02, 0, b.rng.uniform(-0.4, 0.4)):
                    add_ornament(b, p, min(gap - 0.05, 0.26), (inner - split) / 2 - 0.02)


def add_sideboard(b: Builder, p: Palette, width: float, height: float, depth: float = 0.42) -> None:
    """A sideboard with doors and drawers; sizes in metres."""
    wood, knob = p.pick_wood(), p.brass
    front = p.pick_wood() if b.rng.random() < 0.5 else p.white
    for sx in (-1, 1):
        for sy in (-1, 1):
            x, y = sx * (width / 2 - 0.07), sy * (depth / 2 - 0.06)
            b.rod((x, y, 0), (x, y, 0.14), 0.012, wood, 0.022)
    b.box((0, 0, 0.14 + (height - 0.14) / 2), (width, depth, height - 0.14), wood, 0.006)
    doors = max(2, round(width / 0.45))
    step = (width - 0.04) / doors
    for k in range(doors):
        x = -width / 2 + 0.02 + (k + 0.5) * step
        rows = 1 if k % 2 else 3
        high = (height - 0.2) / rows
        for row in range(rows):
            z = 0.17 + (row + 0.5) * high
            b.box((x, depth / 2 + 0.006, z), (step - 0.016, 0.016, high - 0.016), front, 0.004)
            dx = 0.0 if rows > 1 else step / 2 - 0.05
            b.ellipsoid((x + dx, depth / 2 + 0.024, z), (0.014, 0.012, 0.014), knob)


def add_wardrobe(b: Builder, p: Palette, width: float, height: float, depth: float = 0.55) -> None:
    """A wardrobe with two doors; sizes in metres."""
    wood = p.pick_wood()
    b.box((0, 0, height / 2), (width, depth, height), wood, 0.005)
    b.box((0, 0.01, height + 0.02), (width + 0.06, depth + 0.06, 0.04), wood, 0.01)
    for sx in (-1, 1):
        x = sx * width / 4
        b.box(
            (x, depth / 2 + 0.006, height / 2 + 0.03), (width / 2 - 0.03, 0.02, height - 0.14), wood
        )
        for z in (0.3, 0.72):
            size = (width / 2 - 0.16, 0.014, height * 0.36)
            b.box((x, depth / 2 + 0.018, z * height), size, p.light_wood, 0.005)
        b.rod(
            (sx * 0.05, depth / 2 + 0.05, 0.95), (sx * 0.05, depth / 2 + 0.05, 1.15), 0.009, p.brass
        )


def add_floor_lamp(b: Builder, p: Palette) -> None:
    """A standing lamp of 1.4 to 1.65 m that gives light."""
    height = b.rng.uniform(1.4, 1.65)
    b.rod((0, 0, 0), (0, 0, 0.025), 0.15, p.iron)
    b.rod((0, 0, 0.02), (0, 0, height), 0.012, p.brass)
    add_lampshade(b, p, height - 0.06, 0.22)


def add_table_lamp(b: Builder, p: Palette) -> None:
    """A small lamp with a glazed foot that gives light."""
    profile = [(0.06, 0), (0.065, 0.01), (0.03, 0.04), (0.07, 0.12), (0.06, 0.19), (0.018, 0.24)]
    b.lathe([*profile, (0.012, 0.3)], p.pick_glaze())
    add_lampshade(b, p, 0.28, 0.13)


def add_lampshade(b: Builder, p: Palette, z: float, radius: float) -> None:
    """A shade with a bulb and its light; z: lower rim, radius: of the lower rim, in metres."""
    high = radius * 1.2
    b.rod((0, 0, z), (0, 0, z + high), radius, p.shade, radius * b.rng.uniform(0.55, 0.9), caps=0)
    b.ball((0, 0, z + high * 0.45), 0.035, p.bulb)
    # The bulb itself is a shape: the light samples lie just outside it.
    b.lamp((0, 0, z + high * 0.45 + 0.06), 0.03, (1.5, 1.2, 0.8))


def add_pendant(b: Builder, p: Palette, ceiling: float, drop: float) -> None:
    """A lamp that hangs `drop` metres below the ceiling at height `ceiling`."""
    z = ceiling - drop
    b.rod((0, 0, z + 0.2), (0, 0, ceiling), 0.006, p.iron)
    shape = [(0.05, z + 0.21), (0.09, z + 0.17), (0.19, z + 0.05), (0.22, z)]
    lacquer = p.make_lacquer()
    for (r0, z0), (r1, z1) in pairwise(shape):
        b.rod((0, 0, z1), (0, 0, z0), r1, lacquer, r0, caps=0)
    b.ball((0, 0, z + 0.07), 0.045, p.bulb)
    b.lamp((0, 0, z - 0.0), 0.06, (2.4, 2.1, 1.6))


def add_vase(b: Builder, p: Palette, height: float, radius: float, flowers: bool = True) -> None:
    """A turned vase, open at the top; height and largest radius in metres."""
    bulge, neck = b.rng.uniform(0.25, 0.65), b.rng.uniform(0.3, 0.7)
    profile = []
    for z in np.linspace(0, 1, 11):
        body = 0.55 + 0.45 * math.sin(math.pi * min(z / bulge / 2 + 0.1, 1.0))
        mouth = neck + (1.15 - neck) * max(z - 0.86, 0) / 0.5
        w = 1 / (1 + math.exp(-(z - 0.72) * 14))
        profile.append((radius * (body * (1 - w) + mouth * w), z * height))
    b.lathe(profile, p.pick_glaze(), closed=False)
    b.rod((0, 0, height * 0.9), (0, 0, height * 0.91), profile[-2][0] * 0.97, p.soil)
    if flowers:
        add_stems(b, p, height * 0.9, height * b.rng.uniform(0.9, 1.5))


def add_stems(b: Builder, p: Palette, z: float, length: float) -> None:
    """Four to eight flowers from height z; length: of the stems in metres."""
    petals = p.make_lacquer()
    for _ in range(b.rng.integers(4, 9)):
        angle, lean = b.rng.uniform(0, 6.28), b.rng.uniform(0.08, 0.45)
        tip = np.array([math.cos(angle) * lean, math.sin(angle) * lean, 1.0])
        tip = tip / np.linalg.norm(tip) * length * b.rng.uniform(0.7, 1.0) + [0, 0, z]
        b.rod((0, 0, z), tip, 0.003, p.leaves, 0.002)
        r = length * b.rng.uniform(0.06, 0.1)
        b.ellipsoid(tip, (r, r, r * 0.6), petals)
        b.ellipsoid(tip + np.array([0, 0, r * 0.45]), (r * 0.4, r * 0.4, r * 0.3), p.brass)
        with b.at(*(tip * 0.6 + np.array([0, 0, z * 0.4]))):
            add_big_leaf(b, p, angle, 0.9, length * 0.25)


def add_big_leaf(b: Builder, p: Palette, angle: float, rise: float, length: float) -> None:
    """One leaf from the origin; angle about z and rise above the ground in radians."""
    R = turn_z(angle) @ tilt(1, -rise) @ tilt(0, b.rng.normal(0, 0.3))
    b.flat(R @ np.array([length / 2, 0, 0]), R, (length / 2, length * 0.2), p.leaves, LEAF)


def add_plant(b: Builder, p: Palette, height: float) -> None:
    """A potted plant: arching leaves from a pot, or a small tree; height in metres."""
    r = height * b.rng.uniform(0.14, 0.2)
    pot = p.terracotta if b.rng.random() < 0.5 else p.pick_glaze()
    z = height * 0.28
    b.lathe([(r * 0.7, 0), (r * 0.8, z * 0.4), (r * 0.95, z * 0.85), (r, z)], pot, closed=False)
    b.rod((0, 0, z * 0.86), (0, 0, z * 0.9), r * 0.94, p.soil)
    if b.rng.random() < 0.55:
        for k in range(b.rng.integers(14, 24)):
            angle = 2.4 * k
            rise = b.rng.uniform(0.35, 1.3)
            stem = height * b.rng.uniform(0.15, 0.5)
            tip = stem * np.array(
                [math.cos(angle) * math.cos(rise), math.sin(angle) * math.cos(rise), math.sin(rise)]
            ) + [0, 0, z * 0.9]
            b.rod((0, 0, z * 0.88), tip, 0.006, p.leaves, 0.004)
            with b.at(*tip):
                add_big_leaf(
                    b, p, angle, rise - b.rng.uniform(0.3, 0.9), height * b.rng.uniform(0.22, 0.4)
                )
    else:
        b.rod((0, 0, z * 0.8), (0.02, 0.01, height * 0.62), 0.018, p.bark, 0.012)
        for k in range(26):
            angle, rise = 2.4 * k, b.rng.uniform(-0.4, 1.4)
            with b.at(0.02, 0.01, height * b.rng.uniform(0.5, 0.72)):
                add_big_leaf(b, p, angle, rise, height * b.rng.uniform(0.18, 0.34))


def add_bowl_of_fruit(b: Builder, p: Palette, radius: float) -> None:
    """A bowl with four to seven fruits; radius: of its rim in metres."""
    glaze = p.pick_glaze()
    profile = [(0.4, 0), (0.42, 0.05), (0.75, 0.22), (0.95, 0.42), (1.0, 0.5)]
    b.lathe([(radius * r, radius * z) for r, z in profile], glaze, closed=False)
    fruit = radius * 0.36
    for k in range(b.rng.integers(4, 7)):
        angle, ring = k * 1.26, 0.45 * radius
        b.ball(
            (ring * math.cos(angle), ring * math.sin(angle), radius * 0.5), fruit, p.pick_fruit()
        )
    if b.rng.random() < 0.8:
        b.ball((0, 0, radius * 0.85), fruit, p.pick_fruit())


def add_mug(b: Builder, p: Palette, radius: float = 0.042) -> None:
    """A mug with a handle; radius in metres."""
    glaze, h = p.pick_glaze(), radius * 2.3
    b.lathe([(radius * 0.85, 0), (radius * 0.97, h * 0.15), (radius, h)], glaze, closed=False)
    b.rod((0, 0, h * 0.8), (0, 0, h * 0.82), radius * 0.96, p.soil)
    points = [
        (radius * 0.95, 0.8),
        (radius * 1.6, 0.72),
        (radius * 1.6, 0.36),
        (radius * 0.95, 0.25),
    ]
    for (x0, z0), (x1, z1) in pairwise(points):
        b.capsule((x0, 0, z0 * h), (x1, 0, z1 * h), radius * 0.14, glaze)


def add_teapot(b: Builder, p: Palette, radius: float = 0.09) -> None:
    """A teapot with lid, spout and handle; radius: of its body in metres."""
    glaze, r = p.pick_glaze(), radius
    b.ellipsoid((0, 0, r * 0.8), (r, r, r * 0.82), glaze)
    b.rod((0, 0, 0), (0, 0, r * 0.25), r * 0.55, glaze, r * 0.7)
    b.ellipsoid((0, 0, r * 1.5), (r * 0.5, r * 0.5, r * 0.18), glaze)
    b.ball((0, 0, r * 1.74), r * 0.13, glaze)
    b.rod((r * 0.7, 0, r * 0.7), (r * 1.65, 0, r * 1.45), r * 0.24, glaze, r * 0.11)
    arc = [(-0.85, 1.25), (-1.45, 1.35), (-1.6, 0.8), (-0.9, 0.5)]
    for (x0, z0), (x1, z1) in pairwise(arc):
        b.capsule((x0 * r, 0, z0 * r), (x1 * r, 0, z1 * r), r * 0.1, glaze)


def add_bottle(b: Builder, p: Palette, height: float) -> None:
    """A bottle with a label; height in metres."""
    r = height * 0.14
    body = [(0.95, 0), (1, 0.03), (1, 0.55), (0.85, 0.64), (0.4, 0.74), (0.34, 0.95), (0.4, 0.96)]
    b.lathe([(r * x, height * z) for x, z in [*body, (0.4, 1.0)]], p.make_lacquer())
    b.rod((0, 0, height * 0.18), (0, 0, height * 0.48), r * 1.012, p.page, caps=0)


def add_toy_blocks(b: Builder, p: Palette, side: float) -> None:
    """Four blocks and a cone; side: of a block in metres."""
    picks = [p.pick_book(), p.pick_wood(), p.pick_book(), p.pick_wood(), p.pick_book()]
    for k, (x, y, z) in enumerate([(-0.6, 0, 0), (0.6, 0.1, 0), (0, 0, 1), (0.2, 1.3, 0)]):
        R = turn_z(b.rng.uniform(-0.4, 0.4))
        b.box((x * side, y * side, (z + 0.5) * side), (side, side, side), picks[k], side * 0.06, R)
    b.rod((0, 0, 2 * side), (0, 0, 2.8 * side), side * 0.5, picks[4], side * 0.02)


def add_candlestick(b: Builder, p: Palette, height: float) -> None:
    """A candle on a brass foot; height in metres."""
    profile = [(0.3, 0), (0.28, 0.04), (0.08, 0.12), (0.07, 0.3), (0.14, 0.36), (0.06, 0.44)]
    b.lathe([(height * 0.6 * r, height * z) for r, z in [*profile, (0.14, 0.6)]], p.brass)
    b.rod((0, 0, height * 0.6), (0, 0, height), height * 0.045, p.white)


def add_picture_stand(b: Builder, p: Palette, size: float) -> None:
    """A framed painting that leans back; size: its height in metres."""
    with b.at(0, 0, 0, rotation=tilt(0, 0.2)):
        b.box((0, 0, size * 0.5), (size * 0.8, 0.016, size), p.pick_wood(), 0.004)
        b.box((0, 0.007, size * 0.5), (size * 0.68, 0.008, size * 0.86), p.make_painting())


def add_parcel(b: Builder, p: Palette, size: float) -> None:
    """A cardboard box; size: its longest side in metres."""
    w, d, h = size * b.rng.uniform(0.6, 1.0, 3)
    b.box((0, 0, h / 2), (w, d, h), p.cardboard)


def add_ornament(b: Builder, p: Palette, height: float, radius: float) -> None:
    """Something small for a shelf, at most this high and wide (metres)."""
    pick = b.rng.integers(6)
    r = max(min(radius, height / 2), 0.02)
    if pick == 0:
        add_vase(b, p, min(height, r * 3.5), r * 0.9, flowers=False)
    elif pick == 1:
        b.ball((0, 0, r), r, p.pick_toy_ball() if b.rng.random() < 0.5 else p.metal)
    elif pick == 2:
        add_book_stack(b, p, 3) if radius > 0.14 else b.ball((0, 0, r), r, p.brass)
    elif pick == 3:
        add_parcel(b, p, r * 1.5)
    elif pick == 4:
        add_picture_stand(b, p, min(height, r * 1.8))
    else:
        add_plant(b, p, min(height * 1.1, r * 3.2))


def add_picture(b: Builder, p: Palette, width: float, height: float) -> None:
    """A framed painting on the wall at y = 0, centred on the origin; sizes in metres."""
    frame = p.pick_wood() if b.rng.random() < 0.6 else p.iron
    b.box((0, 0.008, 0), (width - 0.02, 0.016, height - 0.02), p.make_painting())
    for s in (-1, 1):
        b.box((s * width / 2, 0.014, 0), (0.03, 0.028, height + 0.03), frame, 0.004)
        b.box((0, 0.014, s * height / 2), (width - 0.03, 0.026, 0.03), frame, 0.004)


def add_monitor(b: Builder, p: Palette, width: float = 0.55) -> None:
    """A screen on a stand; width in metres."""
    b.box((0, 0, 0.008), (0.24, 0.18, 0.016), p.iron, 0.004)
    b.rod((0, -0.02, 0.01), (0, -0.02, 0.25), 0.018, p.iron)
    b.box((0, 0, 0.32), (width, 0.025, width * 0.6), p.iron, 0.006)
    b.box((0, 0.012, 0.32), (width - 0.03, 0.008, width * 0.6 - 0.03), p.screen)


def add_tree(b: Builder, p: Palette, height: float) -> None:
    """A tree with branches, crown and twigs; height in metres."""
    trunk = height * 0.45
    b.rod((0, 0, 0), (0.03, 0.02, trunk), height * 0.04, p.bark, height * 0.025)
    crown = height * 0.3
    for _ in range(5):
        angle, rise = b.rng.uniform(0, 6.28), b.rng.uniform(0.5, 1.2)
        tip = np.array(
            [math.cos(angle) * math.cos(rise), math.sin(angle) * math.cos(rise), math.sin(rise)]
        ) * crown + [0, 0, trunk * 0.9]
        b.rod((0.03, 0.02, trunk * 0.9), tip, height * 0.018, p.bark, height * 0.006)
    for k in range(34):
        direction = b.rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        centre = direction * crown * b.rng.uniform(0.35, 0.85) * [1, 1, 0.8]
        r = crown * b.rng.uniform(0.22, 0.38)
        R = turn_z(b.rng.uniform(0, 6.28)) @ tilt(0, b.rng.uniform(0, 3.14))
        radii = (r, r * b.rng.uniform(0.7, 1.0), r * b.rng.uniform(0.5, 0.8))
        b.ellipsoid(centre + np.array([0, 0, trunk + crown * 0.6]), radii, p.foliage, R)
        if k % 2:
            continue
        for _ in range(4):  # twigs with leaves break the round outline
            d = b.rng.normal(size=3)
            d /= np.linalg.norm(d)
            with b.at(*(centre + [0, 0, trunk + crown * 0.6] + d * r * 0.8)):
                add_big_leaf(b, p, math.atan2(d[1], d[0]), math.asin(d[2]) * 0.7, height * 0.06)


def add_bush(b: Builder, p: Palette, radius: float) -> None:
    """A bush of nine overlapping ellipsoids; radius in metres."""
    for _ in range(9):
        x, y = b.rng.normal(0, 0.4 * radius, 2)
        r = radius * b.rng.uniform(0.4, 0.65)
        b.ellipsoid((x, y, r * 0.7), (r, r * 0.9, r * 0.8), p.foliage, turn_z(b.rng.uniform(0, 6)))


def add_bench(b: Builder, p: Palette, width: float = 1.5) -> None:
    """A park bench with a back; width in metres."""
    for sx in (-1, 1):
        x = sx * (width / 2 - 0.15)
        for y in (-0.2, 0.2):
            b.box((x, y, 0.22), (0.05, 0.05, 0.44), p.iron, 0.005)
        b.box((x, 0, 0.42), (0.05, 0.46, 0.04), p.iron)
        b.box((x, -0.24, 0.64), (0.04, 0.03, 0.5), p.iron, 0, tilt(0, 0.15))
    wood = p.pick_wood()
    for k in range(4):
        b.box((0, -0.17 + 0.115 * k, 0.455), (width, 0.09, 0.03), wood, 0.008)
    for k in range(3):
        z = 0.58 + 0.12 * k
        b.box((0, -0.205 - 0.15 * (z - 0.45), z), (width, 0.025, 0.09), wood, 0.008, tilt(0, 0.15))


def add_fountain(b: Builder, stone: int, water: int, radius: float) -> None:
    """A fountain with two basins; stone, water: materials, radius: of the lower rim in metres."""
    rim = [(1, 0), (1.02, 0.08), (0.95, 0.14), (0.95, 0.4), (1.04, 0.44), (1.04, 0.5)]
    b.lathe([(radius * r, z) for r, z in rim], stone, closed=False)
    b.lathe([(radius * 0.9, 0.02), (radius * 0.9, 0.5)], stone, closed=False)
    b.rod((0, 0, 0.3), (0, 0, 0.38), radius * 0.9, water)
    pillar = [
        (0.3, 0.3),
        (0.28, 0.42),
        (0.12, 0.55),
        (0.1, 0.9),
        (0.16, 1.0),
        (0.5, 1.2),
        (0.55, 1.26),
    ]
    b.lathe([(radius * r, z) for r, z in pillar], stone, closed=False)
    b.rod((0, 0, 1.2), (0, 0, 1.22), radius * 0.5, water)
    top = [(0.1, 1.22), (0.06, 1.32), (0.07, 1.5), (0.16, 1.58), (0.1, 1.68), (0.02, 1.78)]
    b.lathe([(radius * r, z) for r, z in top], stone)


def add_barrel(b: Builder, p: Palette, height: float = 0.8) -> None:
    """A wooden barrel with four hoops; height in metres."""
    r = height * 0.34
    shape = [(0.84, 0), (0.95, 0.25), (1.0, 0.5), (0.95, 0.75), (0.84, 1.0)]
    b.lathe([(r * x, height * z) for x, z in shape], p.pick_wood())
    for z, x in ((0.12, 0.905), (0.35, 0.985), (0.65, 0.985), (0.88, 0.905)):
        b.rod(
            (0, 0, height * (z - 0.025)),
            (0, 0, height * (z + 0.025)),
            r * x * 1.015,
            p.iron,
            caps=0,
        )


def add_crate(b: Builder, p: Palette, side: float = 0.6) -> None:
    """A slatted wooden crate; side in metres."""
    wood = p.pick_wood()
    b.box((0, 0, side / 2), (side * 0.93, side * 0.93, side * 0.94), wood)
    for z in (0.06, 0.5, 0.94):
        b.box((0, 0, side * z), (side, side, side * 0.11), wood, 0.004)
    for sx in (-1, 1):
        for sy in (-1, 1):
            b.box(
                (sx * side * 0.45, sy * side * 0.45, side / 2),
                (side * 0.11, side * 0.11, side),
                wood,
            )


def add_lamp_post(b: Builder, p: Palette, height: float = 3.2) -> None:
    """A street lamp without light; height in metres."""
    foot = [(0.14, 0), (0.13, 0.1), (0.06, 0.25), (0.045, 0.6), (0.07, 0.66), (0.035, 0.75)]
    b.lathe([*foot, (0.03, height - 0.45)], p.iron)
    b.rod((0, 0, height - 0.45), (0, 0, height - 0.12), 0.09, p.white, 0.14)
    b.rod((0, 0, height - 0.12), (0, 0, height + 0.08), 0.18, p.iron, 0.03)


def add_planter(b: Builder, p: Palette, width: float) -> None:
    """A trough with bushes and flowers; width in metres."""
    stone = p.terracotta
    b.box((0, 0, 0.22), (width, 0.45, 0.44), stone, 0.02)
    b.box((0, 0, 0.442), (width - 0.08, 0.37, 0.01), p.soil)
    count = max(2, round(width / 0.35))
    for k in range(count):
        x = (k - (count - 1) / 2) * width / count
        with b.at(x, b.rng.normal(0, 0.03), 0.4):
            if b.rng.random() < 0.5:
                add_bush(b, p, 0.24)
            else:
                add_stems(b, p, 0, 0.45)
