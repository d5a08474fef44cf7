# The call that every fixer answers, and what is checked before the work begins.
from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from triplets.pictures import resized

log = logging.getLogger(__name__)


class Fixer(Protocol):
    """Anything that fixes renders."""

    def fix(
        self,
        renders: Tensor,
        references: Tensor | None = None,
        *,
        confidence: Tensor | None = None,
        alphas: Tensor | None = None,
    ) -> Tensor:
        """Fixed renders [N,H,W,3] for renders [N,H,W,3], references [N,R,H',W',3] (R >= 0) or None.

        Floats in [0,1]. `confidence` [N,H,W] in [0,1] is how far to trust the render: 1 keeps it,
        0 takes the fixer's answer. `alphas` [N,H,W] in [0,1] are the renders' opacities where they
        are known: what is black because nothing is there. Raises ValueError for shapes that do not
        fit and for NaN.
        """
        ...


def checked(
    renders: Tensor,
    references: Tensor | None,
    confidence: Tensor | None,
    alphas: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The inputs of a fixer: float32, in [0,1], references of the renders' size or None.

    Raises ValueError where shapes do not go together or a number is not finite.
    """
    if renders.ndim != 4 or renders.shape[-1] != 3 or 0 in renders.shape[1:]:
        raise ValueError(f"renders must be [N,H,W,3], not {list(renders.shape)}")
    N, H, W, _ = renders.shape
    for name, told in (("confidence", confidence), ("alphas", alphas)):
        if told is not None and told.shape != (N, H, W):
            raise ValueError(
                f"{name}: {list(told.shape)}; renders of {list(renders.shape)} need [N,H,W]"
            )
    if references is not None:
        shape = references.shape
        if references.ndim != 5 or shape[0] != N or shape[-1] != 3 or 0 in shape[2:]:
            raise ValueError(f"references must be [{N},R,H,W,3], not {list(shape)}")
        if shape[1] == 0:
            references = None
    for name, images in (
        ("renders", renders),
        ("references", references),
        ("confidence", confidence),
        ("alphas", alphas),
    ):
        if images is not None and not images.isfinite().all():
            raise ValueError(f"the {name} hold NaN or infinity")
    for name, told in (("confidence", confidence), ("alphas", alphas)):
        if told is not None and told.numel() and not -0.01 <= told.min() <= told.max() <= 1.01:
            raise ValueError(f"the {name} must lie in [0,1], not in [{told.min()}, {told.max()}]")
    if references is not None:
        references = fitted(references.float().clamp(0, 1), H, W)
    return renders.float().clamp(0, 1), references


def fitted(references: Tensor, height: int, width: int) -> Tensor:
    """References [N,R,H',W',3] at another size; said when it changes."""
    if references.shape[2:4] == (height, width):
        return references
    sizes = "{}x{} to {}x{}".format(*reversed(references.shape[2:4]), width, height)
    log.info("references are resized from %s", sizes)
    flat = resized(references.flatten(0, 1), height, width)
    return flat.unflatten(0, references.shape[:2])


def trusting(renders: Tensor, fixed: Tensor, confidence: Tensor | None) -> Tensor:
    """The render where it is trusted, the fixer's answer elsewhere."""
    if confidence is None:
        return fixed
    return torch.lerp(fixed, renders, confidence[..., None].to(fixed).clamp(0, 1))
