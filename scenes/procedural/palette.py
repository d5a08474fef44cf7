# The materials of one place: a few woods, cloths, glazes and colours that go together.
from __future__ import annotations

from functools import cached_property

import numpy as np

from scenes.procedural import textures as tx
from scenes.procedural.builder import Builder

WOODS = (
    (0.78, 0.6, 0.42), (0.62, 0.42, 0.26), (0.45, 0.28, 0.17), (0.85, 0.72, 0.55),
    (0.55, 0.36, 0.28), (0.36, 0.25, 0.2),
)  # fmt: skip
EARTHY = (0.02, 0.06, 0.09, 0.12, 0.56, 0.6)  # hues of bricks, leather, mustard, denim


class Palette:
    """Materials by index, created at first use; all randomness is the builder's generator."""

    def __init__(self, b: Builder) -> None:
        self.b, self.rng = b, b.rng
        self.hue = self.rng.random()  # of the place: accents stay near it or opposite to it
        self.light_wood, self.dark_wood = self._woods()

    def _woods(self) -> tuple[int, int]:
        picks = self.rng.permutation(len(WOODS))[:2]
        return tuple(
            self.b.material(
                tx.draw_wood(self.rng, WOODS[k]), 0.8, grain=True, sharpness=60, mirror=0.25
            )
            for k in picks
        )

    def pick_accent(self, saturation: float = 0.55, value: float = 0.7) -> tx.Colour:
        """A random colour, RGB in [0, 1], that suits the place."""
        if self.rng.random() < 0.45:
            hue = self.rng.choice(EARTHY)
        else:
            hue = self.hue + self.rng.choice([0.0, 0.06, -0.06, 0.5, 0.45])
        hue = (hue + self.rng.normal(0, 0.02)) % 1.0
        # Strong greens, violets and pinks look like plastic: mute them.
        mute = 0.6 if 0.22 < hue < 0.45 or 0.7 < hue < 0.95 else 0.85
        return tx.hsv_to_rgb(
            hue,
            mute * np.clip(saturation + self.rng.normal(0, 0.1), 0.05, 0.85),
            np.clip(value + self.rng.normal(0, 0.12), 0.15, 0.92),
        )

    def pick_wood(self) -> int:
        """One of the place's two woods."""
        return self.light_wood if self.rng.random() < 0.5 else self.dark_wood

    @cached_property
    def _cloths(self) -> list[int]:
        return [
            self.b.material(tx.draw_fabric(self.rng, self.pick_accent(0.4, 0.6), k % 4), 0.45)
            for k in range(5)
        ]

    def pick_cloth(self) -> int:
        """One of five cloths."""
        return int(self.rng.choice(self._cloths))

    @cached_property
    def upholstery(self) -> int:
        """Cloth of sofas and armchairs."""
        return self.b.material(tx.draw_fabric(self.rng, self.pick_accent(0.35, 0.55), 0), 0.35)

    @cached_property
    def linen(self) -> int:
        """White cloth of sheets and pillows."""
        return self.b.material(tx.draw_fabric(self.rng, (0.88, 0.86, 0.8), 0), 0.4)

    @cached_property
    def _covers(self) -> list[np.ndarray]:
        return [tx.draw_cover(self.rng) for _ in range(5)]

    @cached_property
    def _books(self) -> list[int]:
        return [
            self.b.material(
                self._covers[k % 5], tint=self.pick_accent(0.6, 0.5), fit=True, sharpness=30
            )
            for k in range(14)
        ]

    def pick_book(self) -> int:
        """One of fourteen book covers."""
        return int(self.rng.choice(self._books))

    @cached_property
    def paper(self) -> int:
        """Edges of pages."""
        return self.b.material(tx.draw_stone(self.rng, (0.88, 0.85, 0.76)), 0.1)

    @cached_property
    def page(self) -> int:
        """A printed page."""
        return self.b.material(tx.draw_print_page(self.rng), fit=True)

    @cached_property
    def white(self) -> int:
        """White paint."""
        return self.b.material(tx.draw_plaster(self.rng, (0.88, 0.87, 0.84)), 0.8, sharpness=25)

    @cached_property
    def metal(self) -> int:
        """Polished steel, reflecting."""
        return self.b.material(
            tx.draw_metal(self.rng, (0.62, 0.62, 0.63)),
            0.4,
            tint=(0.9, 0.9, 0.92),
            f0=0.55,
            sharpness=120,
            mirror=0.9,
        )

    @cached_property
    def brass(self) -> int:
        """Polished brass, reflecting."""
        return self.b.material(
            tx.draw_metal(self.rng, (0.7, 0.55, 0.3)),
            0.4,
            tint=(1.0, 0.85, 0.55),
            f0=0.55,
            sharpness=90,
            mirror=0.9,
        )

    @cached_property
    def iron(self) -> int:
        """Dark iron."""
        return self.b.material(tx.draw_metal(self.rng, (0.2, 0.2, 0.21)), 0.3, sharpness=40)

    @cached_property
    def glass(self) -> int:
        """Dark panes that reflect the sky."""
        return self.b.material(
            tx.draw_metal(self.rng, (0.22, 0.26, 0.3)), 2.0, f0=0.12, sharpness=300, mirror=1.0
        )

    @cached_property
    def _glazes(self) -> list[int]:
        return [
            self.b.material(
                tx.draw_glaze(self.rng, self.pick_accent(0.45, 0.65), k % 3),
                0.3,
                sharpness=150,
                mirror=0.9,
            )
            for k in range(5)
        ]

    def pick_glaze(self) -> int:
        """One of five ceramic glazes."""
        return int(self.rng.choice(self._glazes))

    def make_lacquer(self) -> int:
        """A new lacquer in an accent colour."""
        return self.b.material(
            tx.draw_metal(self.rng, self.pick_accent(0.7, 0.62)), 0.5, sharpness=200, mirror=0.8
        )

    @cached_property
    def _fruits(self) -> list[int]:
        colours = ((0.8, 0.2, 0.15), (0.92, 0.55, 0.12), (0.55, 0.68, 0.2), (0.9, 0.78, 0.25))
        return [
            self.b.material(tx.draw_skin(self.rng, c), 0.15, sharpness=60, mirror=0.3)
            for c in colours
        ]

    def pick_fruit(self) -> int:
        """The skin of one of four kinds of fruit."""
        return int(self.rng.choice(self._fruits))

    @cached_property
    def _balls(self) -> list[int]:
        return [
            self.b.material(tx.draw_ball(self.rng, k), fit=True, sharpness=120, mirror=0.4)
            for k in range(3)
        ]

    def pick_toy_ball(self) -> int:
        """One of three toy balls."""
        return int(self.rng.choice(self._balls))

    @cached_property
    def cardboard(self) -> int:
        """Cardboard with tape and print."""
        return self.b.material(tx.draw_cardboard(self.rng), fit=True)

    @cached_property
    def leaves(self) -> int:
        """Large leaves of plants."""
        picture = tx.draw_leaf(self.rng, self.rng.uniform(0.24, 0.36))
        return self.b.material(picture, fit=True, sharpness=25)

    @cached_property
    def foliage(self) -> int:
        """Small leaves of trees and bushes."""
        return self.b.material(tx.draw_foliage(self.rng, self.rng.uniform(0.22, 0.34)), 0.7)

    @cached_property
    def bark(self) -> int:
        """Bark of trees."""
        return self.b.material(tx.draw_wood(self.rng, (0.36, 0.28, 0.22)), 0.5)

    @cached_property
    def soil(self) -> int:
        """Soil in pots, and coffee."""
        return self.b.material(tx.draw_stone(self.rng, (0.25, 0.19, 0.15)), 0.2)

    @cached_property
    def terracotta(self) -> int:
        """Terracotta of pots and planters."""
        return self.b.material(tx.draw_stone(self.rng, (0.68, 0.4, 0.28)), 0.5)

    @cached_property
    def screen(self) -> int:
        """A screen that shines."""
        return self.b.material(
            tx.draw_screen(self.rng), fit=True, emission=0.35, sharpness=200, mirror=0.5
        )

    @cached_property
    def shade(self) -> int:
        """A lampshade, lit from inside."""
        return self.b.material(tx.draw_fabric(self.rng, (0.93, 0.86, 0.72), 0), 0.3, emission=0.9)

    @cached_property
    def bulb(self) -> int:
        """A bulb that shines."""
        return self.b.material(None, tint=(1.0, 0.9, 0.7), emission=6.0)

    def make_painting(self) -> int:
        """A new painting in one of five styles."""
        return self.b.material(
            tx.draw_painting(self.rng, int(self.rng.integers(5))), fit=True, sharpness=40
        )

    def make_rug(self) -> int:
        """A new rug."""
        return self.b.material(tx.draw_rug(self.rng), fit=True)

    def make_paving_stone(self) -> int:
        """Light stone of kerbs, cornices and fountains."""
        return self.b.material(tx.draw_stone(self.rng, (0.62, 0.59, 0.54)), 1.0)
