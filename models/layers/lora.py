# Low-rank adaptation of linear layers (LoRA, arXiv 2106.09685) as a parametrization: the layer's
# code does not change.
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """weight -> weight + scaling * B A, block by block of the output rows.

    `parts` says which of the equal blocks of rows are adapted: (True, False, True) for q and v of
    a fused qkv. Starts as no change: B is zero.
    """

    def __init__(
        self, weight: Tensor, rank: int, scaling: float, parts: tuple[bool, ...] = (True,)
    ):
        super().__init__()
        rows, columns = weight.shape
        block, adapted = rows // len(parts), sum(parts)
        self.parts, self.scaling = parts, scaling
        self.a = nn.Parameter(weight.new_empty(adapted, rank, columns))
        self.b = nn.Parameter(weight.new_zeros(adapted, block, rank))
        for part in self.a:  # each by itself: together they would count as one wide layer
            nn.init.kaiming_uniform_(part, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The adapted weight [rows, columns]."""
        change = iter((self.b @ self.a * self.scaling).unbind())
        blocks = weight.chunk(len(self.parts))
        return torch.cat(
            [w + next(change) if on else w for w, on in zip(blocks, self.parts, strict=True)]
        )


def add_lora(
    linear: nn.Linear, rank: int, alpha: float, parts: tuple[bool, ...] = (True,)
) -> LowRank:
    """Adapt a layer: its own weight is frozen, the returned factors are trained."""
    lora = LowRank(linear.weight, rank, alpha / rank, parts)
    parametrize.register_parametrization(linear, "weight", lora)
    linear.parametrizations.weight.original.requires_grad_(False)
    return lora


def merge_lora(module: nn.Module) -> None:
    """Write every adaptation below `module` into the weights and forget it."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
