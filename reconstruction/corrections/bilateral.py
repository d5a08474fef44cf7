# Bilateral grids of affine colour transforms (Wang et al. 2024, arXiv 2406.00448), with gsplat's
# settings: each photo's way from the scene's colours to its own.
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LUMA = (0.299, 0.587, 0.114)


class BilateralGrids(nn.Module):
    """`count` grids over (x, y, luma) of the transforms [3, 4] of RGB; the identity at first.

    A cell's transform is that of its whole photo, which learns an exposure in few steps, plus a
    change of its own. The transforms of whole photos are the identity on average, so that the
    scene's colours are the photos' common ones. shape: cells in x, in y and of luma.
    """

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        x, y, w = shape
        self.register_buffer("identity", torch.eye(3, 4).reshape(1, 12, 1, 1, 1))
        self.whole = nn.Parameter(torch.zeros(count, 12, 1, 1, 1))
        self.cells = nn.Parameter(torch.zeros(count, 12, w, y, x))

    def forward(self, colors: Tensor, places: Tensor, row: int) -> Tensor:
        """The colours [H, W, 3] at places [H, W, 2] (x, y in [0, 1] of the photo) in this photo."""
        luma = colors @ colors.new_tensor(LUMA)
        at = torch.cat([places, luma[..., None]], dim=-1) * 2 - 1
        whole = self.identity + self.whole[row : row + 1] - self.whole.mean(0, keepdim=True)
        sliced = F.grid_sample(
            whole + self.cells[row : row + 1],
            at[None, None],
            padding_mode="border",
            align_corners=True,
        )
        transforms = sliced[0, :, 0].movedim(0, -1).unflatten(-1, (3, 4))  # [H, W, 3, 4]
        return (transforms[..., :3] @ colors[..., None])[..., 0] + transforms[..., 3]

    def total_variation(self, rows: Tensor) -> Tensor:
        """Mean squared difference of neighbouring cells of these grids, summed over the axes."""
        cells = self.cells[rows]
        return sum(cells.diff(dim=axis).square().mean() for axis in (2, 3, 4))


def list_places(size: tuple[int, int], corner: tuple[int, int], whole: tuple[int, int]) -> Tensor:
    """Pixel centres [H, W, 2] of a crop of `size` at `corner`, in [0, 1] of the `whole` photo.

    All three are (x, y).
    """
    xs, ys = (
        (torch.arange(n) + 0.5 + first) / total
        for n, first, total in zip(size, corner, whole, strict=True)
    )
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
