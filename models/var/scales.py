# The schedule of scales: the grids of tokens that are predicted one after the other, coarse to
# fine.
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise


@dataclass(frozen=True)
class ScaleSchedule:
    """Grids (rows, columns) of the scales, from 1x1 to the latent's own size."""

    grids: tuple[tuple[int, int], ...]

    def __post_init__(self):
        if not self.grids or self.grids[0] != (1, 1):
            raise ValueError(f"patch_nums must begin with 1, not {self.text}")
        for small, large in pairwise(self.grids):
            if small[0] > large[0] or small[1] > large[1] or small == large:
                raise ValueError(f"patch_nums must grow from scale to scale, not {self.text}")

    @classmethod
    def of(
        cls, patch_nums: "ScaleSchedule | str | Sequence[int | Sequence[int]]"
    ) -> "ScaleSchedule":
        """From side lengths or (rows, columns), or a text such as 1_2_3_4 or 1_2_2x3_4x6."""
        if isinstance(patch_nums, ScaleSchedule):
            return patch_nums
        if isinstance(patch_nums, str):
            try:
                patch_nums = [[int(n) for n in part.split("x")] for part in patch_nums.split("_")]
            except ValueError:
                raise ValueError(
                    f"patch_nums {patch_nums!r} is not a list such as 1_2_3_4_6 or 1_2x3_4x6"
                ) from None
        pairs = [(n, n) if isinstance(n, int) else (n[0], n[-1]) for n in patch_nums]
        return cls(tuple(pairs))

    @property
    def text(self) -> str:
        """As a flag is written: 1_2_3_4, or 1_2x3_4x6."""
        return "_".join(str(r) if r == c else f"{r}x{c}" for r, c in self.grids)

    @property
    def latent(self) -> tuple[int, int]:
        """Rows and columns of the last scale."""
        return self.grids[-1]

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each scale."""
        return tuple(rows * columns for rows, columns in self.grids)

    @property
    def length(self) -> int:
        """Tokens of all scales."""
        return sum(self.lengths)

    def __len__(self) -> int:
        return len(self.grids)

    def fitted(self, rows: int, columns: int) -> "ScaleSchedule":
        """The same number of scales, stretched to a latent of another size or shape.

        Raises ValueError where the latent is too small for that many scales.
        """
        if (rows, columns) == self.latent:
            return self
        r, c = self.latent
        grids = [
            (max(1, round(a * rows / r)), max(1, round(b * columns / c))) for a, b in self.grids[1:]
        ]
        grids = [(1, 1), *grids]
        try:
            return ScaleSchedule(tuple(grids))
        except ValueError:
            raise ValueError(
                f"a latent of {rows}x{columns} is too small for the {len(self)} scales {self.text}"
            ) from None
