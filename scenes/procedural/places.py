# The kinds of scenes: a furnished room, objects on a table, a courtyard. Each fills a Builder.
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from scenes.procedural import objects as ob
from scenes.procedural import textures as tx
from scenes.procedural.builder import Builder, turn_z
from scenes.procedural.palette import Palette


@dataclass
class Place:
    """Where a camera can be in a place, and what it looks at; lengths in metres.

    focus: [3] the point of interest; reach: radius of an orbit around it; heights: lowest and
    highest camera; half: half extents of the walkable ground; sky_light: weight of the sky's
    ambient light.
    """

    focus: tuple[float, float, float]
    reach: float
    heights: tuple[float, float]
    half: tuple[float, float]
    sky_light: float = 0.0


@dataclass
class Floor:
    """The occupied rectangles of a floor: (x, y, half width, half depth) in metres."""

    half: tuple[float, float]
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def free(self, x: float, y: float, hw: float, hd: float, gap: float = 0.06) -> bool:
        """Whether a rectangle is on the floor and at least `gap` metres from occupied ones."""
        if abs(x) + hw > self.half[0] or abs(y) + hd > self.half[1]:
            return False
        return all(
            abs(x - a) > hw + c + gap or abs(y - b) > hd + d + gap for a, b, c, d in self.taken
        )

    def take(self, x: float, y: float, hw: float, hd: float) -> None:
        """Mark a rectangle as occupied."""
        self.taken.append((x, y, hw, hd))


def scatter(
    b: Builder, p: Palette, width: float, depth: float, z: float, count: int, size: float = 1.0
) -> None:
    """Place `count` small things on a surface around the frame's origin, without overlaps."""
    makers: list[tuple[float, Callable[[float], None]]] = [
        (0.15, lambda r: ob.add_bowl_of_fruit(b, p, r)),
        (0.1, lambda r: ob.add_vase(b, p, r * b.rng.uniform(2.2, 3.4), r * 0.85)),
        (0.15, lambda r: ob.add_book_stack(b, p, int(b.rng.integers(2, 6)))),
        (0.085, lambda r: ob.add_mug(b, p)),
        (0.15, lambda r: ob.add_teapot(b, p)),
        (0.055, lambda r: ob.add_bottle(b, p, b.rng.uniform(0.24, 0.34))),
        (0.12, lambda r: ob.add_toy_blocks(b, p, 0.06)),
        (0.07, lambda r: ob.add_candlestick(b, p, b.rng.uniform(0.2, 0.34))),
        (0.09, lambda r: b.ball((0, 0, r), r, p.pick_toy_ball())),
        (0.07, lambda r: b.ball((0, 0, r), r, p.metal)),
        (0.12, lambda r: ob.add_parcel(b, p, r * 1.5)),
        (0.11, lambda r: ob.add_picture_stand(b, p, 0.24)),
        (0.14, lambda r: ob.add_plant(b, p, 0.36)),
        (0.045, lambda r: b.ball((0, 0, r), r, p.pick_fruit())),
        (0.16, lambda r: b.box((0, 0, 0.001), (0.21, 0.297, 0.002), p.page)),
    ]
    order = b.rng.permutation(len(makers))
    placed: list[tuple[float, float, float]] = []
    done = 0
    for attempt in range(count * 12):
        if done == count:
            return
        radius, make = makers[order[done % len(makers)]]
        radius *= size
        hw, hd = width / 2 - radius - 0.02, depth / 2 - radius - 0.02
        if hw <= 0 or hd <= 0:
            order = np.roll(order, -1)
            continue
        x, y = b.rng.uniform(-hw, hw), b.rng.uniform(-hd, hd)
        if any(math.hypot(x - a, y - c) < radius + r + 0.01 for a, c, r in placed):
            if attempt % 12 == 11:
                order = np.roll(order, -1)
            continue
        placed.append((x, y, radius))
        done += 1
        with b.at(x, y, z, b.rng.uniform(0, 6.28)):
            make(radius)


# Rooms


@dataclass
class Opening:
    """A door or window: its centre along the wall, width, and height range in metres."""

    x: float
    width: float
    low: float
    high: float
    door: bool = False


@dataclass
class Shell:
    """The four walls of a room, counted anticlockwise from -y, and their openings."""

    width: float
    depth: float
    height: float
    openings: list[list[Opening]]  # per wall

    def length(self, wall: int) -> float:
        """Length of a wall in metres."""
        return self.width if wall % 2 == 0 else self.depth

    def pose(self, wall: int) -> tuple[float, float, float]:
        """(x, y, turn) of a wall's frame: x along the wall, y into the room."""
        w, d = self.width / 2, self.depth / 2
        return ((0, -d, 0), (w, 0, math.pi / 2), (0, d, math.pi), (-w, 0, -math.pi / 2))[wall]

    def point(self, wall: int, along: float, inward: float) -> tuple[float, float]:
        """The point (x, y) on the floor that is `along` a wall and `inward` from it."""
        x, y, turn = self.pose(wall)
        dx, dy, _ = turn_z(turn) @ [along, inward, 0]
        return x + dx, y + dy


def _floor_material(b: Builder) -> int:
    rng = b.rng
    colour = tuple(
        np.array([(0.72, 0.54, 0.36), (0.55, 0.38, 0.25), (0.8, 0.68, 0.5)])[rng.integers(3)]
    )
    pick = rng.integers(5)
    if pick <= 1:
        return b.material(tx.draw_planks(rng, colour), 1.5, sharpness=90, mirror=0.7)
    if pick == 2:
        return b.material(tx.draw_herringbone(rng, colour), 1.2, sharpness=90, mirror=0.6)
    if pick == 3:
        first = tx.hsv_to_rgb(rng.random(), rng.uniform(0.05, 0.25), rng.uniform(0.3, 0.55))
        picture = tx.draw_tiles(rng, first, (0.84, 0.82, 0.77), int(rng.choice([2, 4])))
        return b.material(picture, 1.3, sharpness=150, mirror=0.9)
    return b.material(tx.draw_carpet(rng, tx.hsv_to_rgb(rng.random(), 0.2, 0.6)), 0.6)


def _wall_materials(b: Builder, p: Palette) -> list[int]:
    """One per wall: paint or paper, and now and then an accent wall."""
    rng = b.rng
    base = tx.hsv_to_rgb(
        p.hue + rng.normal(0, 0.05), rng.uniform(0.05, 0.28), rng.uniform(0.74, 0.92)
    )
    if rng.random() < 0.55:
        main = b.material(tx.draw_plaster(rng, base), 1.2)
    else:
        main = b.material(tx.draw_wallpaper(rng, base, int(rng.integers(4))), 1.2)
    walls = [main] * 4
    if rng.random() < 0.65:
        pick = rng.integers(3)
        if pick == 0:
            accent = b.material(tx.draw_bricks(rng, (0.62, 0.36, 0.28), 12), 1.0)
        elif pick == 1:
            accent = b.material(
                tx.draw_wallpaper(rng, p.pick_accent(0.3, 0.6), int(rng.integers(4))), 1.2
            )
        else:
            accent = b.material(tx.draw_plaster(rng, p.pick_accent(0.4, 0.55)), 1.2)
        walls[rng.integers(4)] = accent
    return walls


def _openings(b: Builder, shell: Shell) -> None:
    rng = b.rng
    window_walls = rng.permutation(4)[: rng.integers(1, 3)]
    for wall in window_walls:
        length = shell.length(wall)
        count = 2 if length > 4.6 and rng.random() < 0.6 else 1
        high = min(shell.height - 0.3, rng.uniform(2.1, 2.3))
        low = rng.uniform(0.75, 0.95) if rng.random() < 0.75 else 0.25
        width = rng.uniform(1.0, 1.4) if count == 2 else rng.uniform(1.3, 2.2)
        for k in range(count):
            x = (k - (count - 1) / 2) * length * 0.48 + rng.normal(0, 0.08)
            shell.openings[wall].append(Opening(x, width, low, high))
    door_wall = int(rng.choice([k for k in range(4) if k not in window_walls]))
    reach = shell.length(door_wall) / 2 - 0.75
    shell.openings[door_wall].append(Opening(rng.choice([-1, 1]) * reach, 0.86, 0, 2.05, True))


def build_shell(b: Builder, p: Palette, shell: Shell, light: float) -> None:
    """Build floor, ceiling, walls with skirting, windows with curtains, and a door."""
    w, d, h = shell.width, shell.depth, shell.height
    rng = b.rng
    b.inside = (np.array([-w / 2, -d / 2, 0]) - 0.15, np.array([w / 2, d / 2, h]) + 0.15)
    b.slab((-w / 2 - 0.2, -d / 2 - 0.2, -0.2), (w / 2 + 0.2, d / 2 + 0.2, 0), _floor_material(b))
    ceiling = b.material(tx.draw_plaster(rng, (0.9, 0.9, 0.88), 0.6), 1.5)
    b.slab((-w / 2 - 0.2, -d / 2 - 0.2, h), (w / 2 + 0.2, d / 2 + 0.2, h + 0.2), ceiling)
    trim = p.white if rng.random() < 0.6 else p.pick_wood()
    curtain = p.pick_cloth() if rng.random() < 0.75 else None
    for wall, material in enumerate(_wall_materials(b, p)):
        x, y, turn = shell.pose(wall)
        with b.at(x, y, 0, turn):
            end = shell.length(wall) / 2
            at = -end - 0.2
            skirting = -end
            for o in sorted(shell.openings[wall], key=lambda o: o.x):
                left, right = o.x - o.width / 2, o.x + o.width / 2
                b.slab((at, -0.2, 0), (left, 0, h), material)
                b.slab((left, -0.2, o.high), (right, 0, h), material)
                if o.low > 0:
                    b.slab((left, -0.2, 0), (right, 0, o.low), material)
                at = right
                if o.door:
                    b.box(((skirting + left) / 2, 0.008, 0.05), (left - skirting, 0.016, 0.1), trim)
                    skirting = right
                    _door(b, p, o, trim)
                else:
                    _window(b, p, o, trim, curtain, light, h)
            b.slab((at, -0.2, 0), (end + 0.2, 0, h), material)
            b.box(((skirting + end) / 2, 0.008, 0.05), (end - skirting, 0.016, 0.1), trim)
            b.box((0, 0.02, h - 0.03), (2 * end, 0.04, 0.06), p.white, 0.012)


def _door(b: Builder, p: Palette, o: Opening, trim: int) -> None:
    leaf = p.white if b.rng.random() < 0.5 else p.pick_wood()
    b.box((o.x, -0.1, o.high / 2), (o.width, 0.04, o.high), leaf)
    for z, high in ((0.5, 0.62), (1.45, 0.9)):
        for sx in (-1, 1):
            b.box((o.x + sx * 0.19, -0.078, z), (0.26, 0.012, high), leaf, 0.004)
    b.capsule((o.x + 0.33, -0.03, 1.0), (o.x + 0.23, -0.03, 1.0), 0.011, p.brass)
    for sx in (-1, 1):
        b.box((o.x + sx * (o.width / 2 + 0.035), 0.01, o.high / 2), (0.07, 0.03, o.high), trim)
    b.box((o.x, 0.01, o.high + 0.035), (o.width + 0.14, 0.03, 0.07), trim)


def _window(
    b: Builder, p: Palette, o: Opening, trim: int, curtain: int | None, light: float, height: float
) -> None:
    middle, tall = (o.low + o.high) / 2, o.high - o.low
    frame = p.white
    for sx in (-1, 0, 1):
        b.box((o.x + sx * (o.width / 2 - 0.025), -0.12, middle), (0.05, 0.06, tall), frame, 0.006)
    for z in (o.low + 0.025, o.low + 0.62 * tall, o.high - 0.025):
        b.box((o.x, -0.12, z), (o.width, 0.05, 0.05), frame, 0.006)
    b.box((o.x, 0.02, o.low - 0.015), (o.width + 0.12, 0.2, 0.03), trim, 0.006)
    if o.low > 0.5 and b.rng.random() < 0.6:
        with b.at(o.x + b.rng.uniform(-0.3, 0.3) * o.width, -0.02, o.low):
            ob.add_plant(b, p, b.rng.uniform(0.28, 0.42))
    radiance = light * np.array([0.88, 0.97, 1.1])
    half_u, half_v = (0, 0, tall / 2 - 0.05), (o.width / 2 - 0.05, 0, 0)
    b.window_light((o.x, -0.09, middle), half_u, half_v, radiance)
    if curtain is not None:
        top = min(o.high + 0.16, height - 0.1)
        b.rod(
            (o.x - o.width / 2 - 0.3, 0.09, top),
            (o.x + o.width / 2 + 0.3, 0.09, top),
            0.014,
            p.brass,
        )
        bottom = 0.04 if b.rng.random() < 0.6 else max(o.low - 0.15, 0.04)
        for sx in (-1, 1):
            for k in range(7):
                x = o.x + sx * (o.width / 2 + 0.22 - 0.062 * k)
                y = 0.085 + 0.02 * (-1) ** k
                b.capsule((x, y, bottom + 0.04), (x, y, top - 0.03), 0.04, curtain)


def build_room(b: Builder) -> Place:
    """A living room, bedroom, study or dining room with daylight and sometimes lamps."""
    rng, p = b.rng, Palette(b)
    w, d, h = rng.uniform(4.2, 6.4), rng.uniform(3.8, 5.4), rng.uniform(2.45, 2.9)
    shell = Shell(w, d, h, [[], [], [], []])
    _openings(b, shell)
    _daylight(b, shell)
    build_shell(b, p, shell, rng.uniform(5.0, 7.0))
    floor = Floor((w / 2, d / 2))
    _keep_clear(shell, floor)
    use = rng.choice(["living", "bedroom", "study", "dining"])
    _centre(b, p, floor, use, h)
    _along_walls(b, p, shell, floor, use)
    _pictures(b, p, shell, floor)
    return Place((0, 0, 0.75), min(w, d) / 2, (1.25, 1.75), (w / 2, d / 2))


def _daylight(b: Builder, shell: Shell) -> None:
    """Sun through one of the windows, and what is outside."""
    wall = next(k for k in range(4) if any(not o.door for o in shell.openings[k]))
    turn = shell.pose(wall)[2]
    angle = turn + math.pi / 2 + math.pi + b.rng.uniform(-0.6, 0.6)
    rise = b.rng.uniform(0.45, 0.85)
    direction = np.array(
        [math.cos(angle) * math.cos(rise), math.sin(angle) * math.cos(rise), math.sin(rise)]
    )
    if b.rng.random() < 0.7:
        b.sun = np.r_[direction, np.array([1.0, 0.88, 0.7]) * b.rng.uniform(10, 16)]
    b.sky = tx.draw_sky(b.rng, direction, 1.1)


def _keep_clear(shell: Shell, floor: Floor) -> None:
    """Room for the door to open."""
    for wall in range(4):
        for o in shell.openings[wall]:
            if o.door:
                px, py = shell.point(wall, o.x, 0.4)
                floor.take(px, py, 0.42, 0.42)


def _centre(b: Builder, p: Palette, floor: Floor, use: str, height: float) -> None:
    rng = b.rng
    turn = float(rng.normal(0, 0.06))
    if use == "dining":
        long = rng.uniform(1.3, 1.8)
        with b.at(0, 0, 0, turn):
            if rng.random() < 0.7:
                _rug(b, p, long + 1.1, 2.1)
            ob.add_table(b, p, long, 0.85, 0.74)
            scatter(b, p, long, 0.85, 0.74, int(rng.integers(5, 9)))
            seat = p.pick_cloth()
            for side in (-1, 1):
                for k in (-1, 1):
                    y = side * rng.uniform(0.5, 0.68)
                    facing = (math.pi if side > 0 else 0.0) + rng.normal(0, 0.15)
                    with b.at(k * long * 0.24, y, 0, facing):
                        ob.add_chair(b, p, seat)
            ob.add_pendant(b, p, height, height - 1.5)
        floor.take(0, 0, long / 2 + 0.05, 1.0)
    elif use == "living":
        with b.at(0, 0.1, 0, turn):
            _rug(b, p, rng.uniform(1.9, 2.6), rng.uniform(1.4, 1.9))
            if rng.random() < 0.5:
                ob.add_table(b, p, 1.05, 0.6, 0.42)
                scatter(b, p, 1.05, 0.6, 0.42, 5)
            else:
                ob.add_round_table(b, p, 0.45, 0.42)
                scatter(b, p, 0.6, 0.6, 0.42, 4)
        floor.take(0, 0.1, 0.55, 0.45)
    else:
        with b.at(rng.normal(0, 0.3), rng.normal(0, 0.2), 0, turn):
            _rug(b, p, rng.uniform(1.6, 2.3), rng.uniform(1.2, 1.6))
            if rng.random() < 0.7:
                with b.at(0.2, 0.1, 0.012, 1.0):
                    ob.add_toy_blocks(b, p, 0.11)
                b.ball((-0.4, -0.2, 0.15), 0.14, p.pick_toy_ball())


def _rug(b: Builder, p: Palette, width: float, depth: float) -> None:
    if b.rng.random() < 0.25:
        cloth = b.material(tx.draw_fabric(b.rng, p.pick_accent(0.3, 0.6), 2), 0.9)
        b.box((0, 0, 0.006), (width, depth, 0.012), cloth, 0.004)
    else:
        b.box((0, 0, 0.006), (width, depth, 0.012), p.make_rug())


def _along_walls(b: Builder, p: Palette, shell: Shell, floor: Floor, use: str) -> None:
    rng = b.rng

    def desk() -> None:
        ob.add_table(b, p, 1.3, 0.62, 0.74)
        with b.at(-0.15, -0.15, 0.74):
            ob.add_monitor(b, p)
        with b.at(0.45, -0.08, 0.74):
            ob.add_table_lamp(b, p)
        scatter(b, p, 0.5, 0.3, 0.74, 2)
        with b.at(0.05, 0.42, 0, math.pi + 0.3):
            ob.add_chair(b, p)

    def side() -> None:
        width, high = rng.uniform(1.2, 1.7), rng.uniform(0.6, 0.85)
        ob.add_sideboard(b, p, width, high)
        scatter(b, p, width, 0.42, high, 6)

    def night_table() -> None:
        ob.add_sideboard(b, p, 0.5, 0.5, 0.4)
        with b.at(0, 0, 0.5):
            ob.add_table_lamp(b, p)

    bed_width = float(rng.choice([1.0, 1.5]))
    sofa_width = rng.uniform(1.7, 2.2)
    shelf_width, shelf_height = rng.uniform(0.8, 1.3), rng.uniform(1.5, 2.1)
    shelf2_width = rng.uniform(0.6, 1.0)
    # Name: (width, depth, tall, how to make it). Depth reaches from the wall into the room.
    items = {
        "bed": (bed_width + 0.1, 2.1, False, lambda: ob.add_bed(b, p, bed_width)),
        "sofa": (sofa_width, 0.92, False, lambda: ob.add_sofa(b, p, sofa_width)),
        "armchair": (0.9, 0.92, False, lambda: ob.add_armchair(b, p)),
        "shelf": (
            shelf_width,
            0.32,
            True,
            lambda: ob.add_bookshelf(b, p, shelf_width, shelf_height),
        ),
        "low shelf": (shelf2_width, 0.32, False, lambda: ob.add_bookshelf(b, p, shelf2_width, 0.8)),
        "wardrobe": (1.15, 0.6, True, lambda: ob.add_wardrobe(b, p, 1.1, 2.0)),
        "sideboard": (1.72, 0.46, False, side),
        "desk": (1.36, 1.0, False, desk),
        "night table": (0.52, 0.42, False, night_table),
        "lamp": (0.46, 0.46, True, lambda: ob.add_floor_lamp(b, p)),
        "plant": (0.55, 0.55, True, lambda: ob.add_plant(b, p, rng.uniform(0.8, 1.25))),
        "chair": (0.5, 0.55, False, lambda: ob.add_chair(b, p)),
        "parcels": (0.6, 0.5, False, lambda: ob.add_parcel(b, p, 0.5)),
    }
    wanted = {
        "living": [
            "sofa",
            "shelf",
            "sideboard",
            "armchair",
            "lamp",
            "plant",
            "low shelf",
            "parcels",
        ],
        "bedroom": [
            "bed",
            "night table",
            "wardrobe",
            "sideboard",
            "chair",
            "lamp",
            "low shelf",
            "plant",
        ],
        "study": ["desk", "shelf", "shelf", "armchair", "lamp", "plant", "sideboard", "parcels"],
        "dining": ["sideboard", "shelf", "plant", "lamp", "chair", "low shelf", "parcels", "plant"],
    }[use]
    for name in wanted:
        width, depth, tall, make = items[name]
        for _ in range(40):
            wall = int(rng.integers(4))
            reach = shell.length(wall) / 2 - width / 2 - 0.03
            along = rng.uniform(-reach, reach)
            if name in ("lamp", "plant"):
                along = rng.choice([-1, 1]) * (reach - 0.05)
            window = [o for o in shell.openings[wall] if not o.door]
            blocked = [o for o in window if abs(o.x - along) < (o.width + width) / 2 + 0.3]
            if blocked and (tall or min(o.low for o in blocked) < 0.7):
                continue
            gap = 0.16 if window else 0.03
            x, y, turn = shell.pose(wall)
            px, py = shell.point(wall, along, depth / 2 + gap)
            hw, hd = (width / 2, depth / 2) if wall % 2 == 0 else (depth / 2, width / 2)
            if not floor.free(px, py, hw, hd):
                continue
            floor.take(px, py, hw, hd)
            inset = depth / 2 if name != "desk" else 0.33
            with b.at(x, y, 0, turn), b.at(along, gap + inset, 0):
                make()
            break


def _pictures(b: Builder, p: Palette, shell: Shell, floor: Floor) -> None:
    rng = b.rng
    for wall in range(4):
        x, y, turn = shell.pose(wall)
        taken = [(o.x, o.width / 2 + 0.4) for o in shell.openings[wall]]
        with b.at(x, y, 0, turn):
            for _ in range(8):
                width, height = rng.uniform(0.4, 1.0), rng.uniform(0.4, 0.75)
                reach = shell.length(wall) / 2 - width / 2 - 0.15
                at = rng.uniform(-reach, reach)
                if any(abs(at - a) < width / 2 + c + 0.06 for a, c in taken):
                    continue
                px, py = shell.point(wall, at, 0.2)
                low = floor.free(px, py, 0.1, 0.1, 0.3)
                taken.append((at, width / 2))
                with b.at(at, 0, rng.uniform(1.4, 1.55) if low else 1.72):
                    ob.add_picture(b, p, width, height if low else min(height, 0.5))
                if len(taken) > len(shell.openings[wall]) + 2:
                    break


# Objects on a table


def build_tabletop(b: Builder) -> Place:
    """A table with many small things, in the middle of a plainly furnished room."""
    rng, p = b.rng, Palette(b)
    b.texel = 0.06
    w, d, h = rng.uniform(4.2, 5.0), rng.uniform(4.0, 4.8), 2.6
    shell = Shell(w, d, h, [[], [], [], []])
    _openings(b, shell)
    _daylight(b, shell)
    build_shell(b, p, shell, rng.uniform(5.5, 7.5))
    floor = Floor((w / 2, d / 2))
    _keep_clear(shell, floor)
    floor.take(0, 0, 1.45, 1.45)
    _pictures(b, p, shell, floor)
    _along_walls(b, p, shell, floor, str(rng.choice(["living", "study", "dining"])))
    high = rng.uniform(0.68, 0.78)
    with b.at(0, 0, 0, rng.uniform(0, 1.5)):
        if rng.random() < 0.5:
            radius = rng.uniform(0.5, 0.62)
            ob.add_round_table(b, p, radius, high)
            side = radius * 1.5
            width = depth = side
        else:
            width, depth = rng.uniform(1.0, 1.3), rng.uniform(0.7, 0.85)
            ob.add_table(b, p, width, depth, high)
        if rng.random() < 0.6:
            cloth = p.pick_cloth()
            b.box((0, 0, high + 0.002), (width * 0.8, depth * 0.55, 0.003), cloth, 0.001)
        scatter(b, p, width, depth, high + 0.004, int(rng.integers(9, 14)))
        ob.add_pendant(b, p, h, 0.55)
    return Place((0, 0, high + 0.1), 1.2, (high + 0.35, high + 0.95), (w / 2, d / 2))


# Courtyards


def build_courtyard(b: Builder) -> Place:
    """A paved yard between houses in the sun: trees, benches, a fountain or a statue."""
    rng, p = b.rng, Palette(b)
    b.texel, b.dome = 0.2, 90.0
    angle, rise = rng.uniform(0, 6.28), rng.uniform(0.6, 1.0)
    direction = np.array(
        [math.cos(angle) * math.cos(rise), math.sin(angle) * math.cos(rise), math.sin(rise)]
    )
    b.sun = np.r_[direction, np.array([1.0, 0.92, 0.78]) * rng.uniform(2.6, 3.4)]
    b.sky = tx.draw_sky(rng, direction, 1.0)
    w, d = rng.uniform(11, 15), rng.uniform(10, 13)
    ground = [
        lambda: b.material(tx.draw_cobbles(rng, (0.5, 0.47, 0.43), 8), 0.9),
        lambda: b.material(tx.draw_bricks(rng, (0.52, 0.38, 0.32), 12), 1.2),
        lambda: b.material(tx.draw_tiles(rng, (0.56, 0.54, 0.5), (0.62, 0.59, 0.54), 2), 1.4),
    ][rng.integers(3)]()
    b.slab((-w / 2 - 8, -d / 2 - 8, -0.3), (w / 2 + 8, d / 2 + 8, 0), ground)
    stone = p.make_paving_stone()
    shell = Shell(w, d, 6.0, [[], [], [], []])
    open_wall = int(rng.integers(6))  # 4 and 5: closed on all sides
    for wall in range(4):
        x, y, turn = shell.pose(wall)
        with b.at(x, y, 0, turn):
            if wall == open_wall:
                _garden_wall(b, p, shell.length(wall), stone)
            else:
                _facade(b, p, shell.length(wall), stone)
    floor = Floor((w / 2, d / 2))
    pick = rng.integers(3)
    if pick == 0:
        water = b.material(
            tx.draw_metal(rng, (0.2, 0.32, 0.34)), 2.0, f0=0.06, sharpness=200, mirror=1.0
        )
        ob.add_fountain(b, stone, water, 1.3)
        floor.take(0, 0, 1.9, 1.9)
    elif pick == 1:
        lawn = b.material(tx.draw_grass(rng), 1.2)
        b.rod((0, 0, 0), (0, 0, 0.12), 2.05, stone)
        b.rod((0, 0, 0.1), (0, 0, 0.14), 1.9, lawn)
        with b.at(0, 0, 0.12):
            ob.add_tree(b, p, rng.uniform(3.6, 4.6))
        floor.take(0, 0, 2.2, 2.2)
    else:
        b.lathe([(0.7, 0), (0.7, 0.3), (0.5, 0.34), (0.48, 1.1), (0.58, 1.2), (0.58, 1.3)], stone)
        b.ball((0, 0, 1.75), 0.46, p.metal if rng.random() < 0.5 else p.make_lacquer())
        floor.take(0, 0, 1.1, 1.1)
        for k in range(4):
            with b.at(1.6 * math.cos(1.57 * k), 1.6 * math.sin(1.57 * k), 0, 1.57 * k):
                ob.add_planter(b, p, 0.9)
        floor.take(0, 0, 2.0, 2.0)
    items: list[tuple[float, Callable[[], None]]] = [
        (1.5, lambda: ob.add_tree(b, p, rng.uniform(3.0, 4.2))),
        (0.85, lambda: ob.add_bench(b, p)),
        (0.85, lambda: ob.add_bench(b, p)),
        (0.4, lambda: ob.add_barrel(b, p)),
        (0.5, lambda: ob.add_crate(b, p)),
        (0.25, lambda: ob.add_lamp_post(b, p)),
        (0.7, lambda: ob.add_planter(b, p, 1.3)),
        (0.6, lambda: ob.add_bush(b, p, 0.5)),
        (0.45, lambda: ob.add_plant(b, p, 1.1)),
        (0.5, lambda: ob.add_crate(b, p, 0.45)),
        (0.7, lambda: ob.add_planter(b, p, 1.1)),
        (0.45, lambda: ob.add_barrel(b, p, 0.7)),
    ]
    for radius, make in items:
        for _ in range(40):
            wall = int(rng.integers(4))
            x, y, turn = shell.pose(wall)
            along = rng.uniform(-1, 1) * (shell.length(wall) / 2 - radius - 0.3)
            inset = radius * 0.7 + rng.uniform(0.25, 2.0)
            px, py = shell.point(wall, along, inset)
            if floor.free(px, py, radius * 0.8, radius * 0.8, 0.15):
                floor.take(px, py, radius * 0.8, radius * 0.8)
                with b.at(px, py, 0, turn):
                    make()
                break
    return Place((0, 0, 1.2), 0.33 * min(w, d), (1.4, 1.9), (w / 2 - 0.5, d / 2 - 0.5), 1.0)


def _garden_wall(b: Builder, p: Palette, length: float, stone: int) -> None:
    brick = b.material(tx.draw_bricks(b.rng, (0.62, 0.4, 0.3), 12), 1.0)
    b.slab((-length / 2, -0.35, 0), (length / 2, 0, 2.0), brick)
    b.box((0, -0.17, 2.06), (length, 0.5, 0.12), stone, 0.02)
    for k in range(5):
        with b.at((k - 2) * length / 5 + b.rng.normal(0, 0.3), -2.2, 0):
            ob.add_tree(b, p, b.rng.uniform(4.0, 5.5))


def _facade(b: Builder, p: Palette, length: float, stone: int) -> None:
    """A house front of two or three floors with windows, a door, a cornice and a roof."""
    rng = b.rng
    floors = int(rng.integers(2, 4))
    storey = rng.uniform(2.8, 3.2)
    high = floors * storey + 0.3
    base = tx.hsv_to_rgb(rng.uniform(0.02, 0.14), rng.uniform(0.1, 0.42), rng.uniform(0.7, 0.9))
    if rng.random() < 0.45:
        wall = b.material(tx.draw_bricks(rng, (0.6, 0.38, 0.3), 12), 1.1)
    else:
        wall = b.material(tx.draw_stone(rng, base), 2.2)
    b.slab((-length / 2 - 0.5, -5, 0), (length / 2 + 0.5, 0, high), wall)
    b.box((0, 0.02, 0.3), (length, 0.08, 0.6), stone, 0.01)
    b.box((0, 0.1, high - 0.1), (length, 0.3, 0.22), stone, 0.03)
    tiles = b.material(tx.draw_roof(rng, (0.58, 0.32, 0.24)), 1.6)
    pitch = np.array(
        [[1, 0, 0], [0, math.cos(0.6), -math.sin(-0.6)], [0, math.sin(-0.6), math.cos(0.6)]]
    )
    b.box((0, -1.75, high + 1.3), (length + 0.4, 5.0, 0.12), tiles, 0, pitch, shift=(0, 0, 0))
    shutters = p.make_lacquer() if rng.random() < 0.6 else None
    columns = max(3, round(length / rng.uniform(2.1, 2.7)))
    door = int(rng.integers(columns))
    step = length / columns
    for floor in range(floors):
        for k in range(columns):
            with b.at(-length / 2 + (k + 0.5) * step, 0, floor * storey):
                if floor == 0 and k == door:
                    _house_door(b, p, stone)
                else:
                    _house_window(b, p, stone, shutters)
    b.box((0, 0.03, storey + 0.12), (length, 0.07, 0.14), stone, 0.015)


def _house_door(b: Builder, p: Palette, stone: int) -> None:
    leaf = p.make_lacquer() if b.rng.random() < 0.5 else p.pick_wood()
    b.box((0, 0.04, 0.09), (1.8, 0.9, 0.18), stone, 0.01)
    b.box((0, 0.03, 1.24), (1.1, 0.06, 2.2), leaf)
    for z in (0.75, 1.7):
        for sx in (-1, 1):
            b.box((sx * 0.26, 0.065, z), (0.36, 0.02, 0.7), leaf, 0.006)
    b.ball((0.42, 0.1, 1.15), 0.035, p.brass)
    for sx in (-1, 1):
        b.box((sx * 0.66, 0.06, 1.3), (0.2, 0.14, 2.4), stone, 0.015)
    b.box((0, 0.08, 2.58), (1.6, 0.22, 0.24), stone, 0.02)


def _house_window(b: Builder, p: Palette, stone: int, shutters: int | None) -> None:
    b.box((0, 0.005, 1.65), (0.95, 0.03, 1.4), p.glass)
    for sx in (-1, 0, 1):
        b.box((sx * 0.46, 0.03, 1.65), (0.06, 0.05, 1.4), p.white)
    for z in (0.97, 1.85, 2.33):
        b.box((0, 0.03, z), (0.95, 0.045, 0.06), p.white)
    b.box((0, 0.08, 0.9), (1.2, 0.22, 0.09), stone, 0.012)
    b.box((0, 0.04, 2.43), (1.14, 0.1, 0.16), stone, 0.012)
    if shutters is not None:
        for sx in (-1, 1):
            b.box((sx * 0.76, 0.03, 1.65), (0.5, 0.04, 1.42), shutters)
            for k in range(8):
                b.box((sx * 0.76, 0.055, 1.06 + 0.17 * k), (0.4, 0.02, 0.08), shutters, 0.004)
    elif b.rng.random() < 0.3:
        b.box((0, 0.2, 1.0), (0.9, 0.18, 0.16), p.terracotta, 0.01)
        for k in range(4):
            with b.at(-0.33 + 0.22 * k, 0.2, 1.02):
                ob.add_bush(b, p, 0.13)


KINDS: dict[str, Callable[[Builder], Place]] = {
    "room": build_room,
    "tabletop": build_tabletop,
    "courtyard": build_courtyard,
}
