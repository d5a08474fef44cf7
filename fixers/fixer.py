# What a fixer is, and what all of them share: checked inputs and blending by confidence.
from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Self = TypeVar("Self")
Arguments = ParamSpec("Arguments")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Needs:
    """What a fixer makes use of beside the renders; without it, it still answers."""

    references: bool = False
    """Photos of the same scene."""
    warped: bool = False
    """References warped into the renders' own views (`splats.warp`), the render itself where they
    have nothing to show; False: unwarped photos."""
    alpha: bool = False
    """The renders' opacity."""
    cameras: bool = False
    """Poses of renders and references."""


SPEED_ONLY = {"speed": True}
"""Metadata of an option that changes how fast a fixer answers, not what."""


@dataclass(frozen=True)
class FixerOptions:
    """Base of each fixer's options. Each field has a docstring, which is the help of its flag."""

    def needs(self) -> Needs:
        """What the fixer will make use of, known before it is built."""
        return Needs()

    def progress(self) -> tuple[int | None, int | None]:
        """Epoch and iteration at which the weights were written, None where that is not known."""
        return None, None

    def with_local_files(self) -> FixerOptions:
        """The same with files below checkpoints/ filled in where none are named, as the test
        scripts do."""
        return self

    def decisive(self) -> dict[str, object]:
        """The options that answers depend on, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("speed")}


class Fixer(Protocol):
    """Anything that fixes renders."""

    needs: Needs

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
        fit and for NaN, also in the answer (see `finite_answer`).
        """
        ...


def validate_inputs(
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
    maps = {"confidence": confidence, "alphas": alphas}
    for name, values in maps.items():
        if values is not None and values.shape != (N, H, W):
            raise ValueError(
                f"{name}: {list(values.shape)}; renders of {list(renders.shape)} need [N,H,W]"
            )
    if references is not None:
        shape = references.shape
        if references.ndim != 5 or shape[0] != N or shape[-1] != 3 or 0 in shape[2:]:
            raise ValueError(f"references must be [{N},R,H,W,3], not {list(shape)}")
        if shape[1] == 0:
            references = None
    for name, values in ({"renders": renders, "references": references} | maps).items():
        if values is not None and not values.isfinite().all():
            raise ValueError(f"the {name} hold NaN or infinity")
    for name, values in maps.items():
        if values is None or not values.numel():
            continue
        least, most = values.min(), values.max()
        if not -0.01 <= least <= most <= 1.01:
            raise ValueError(f"the {name} must lie in [0,1], not in [{least}, {most}]")
    if references is not None:
        references = resize_references(references.float().clamp(0, 1), H, W)
    return renders.float().clamp(0, 1), references


def resize_references(references: Tensor, height: int, width: int) -> Tensor:
    """References [N,R,H',W',3] at another size; a change is logged."""
    if references.shape[2:4] == (height, width):
        return references
    from triplets.pictures import resize

    sizes = "{}x{} to {}x{}".format(*reversed(references.shape[2:4]), width, height)
    log.info("references are resized from %s", sizes)
    return resize(references, height, width)


class NotFiniteError(FloatingPointError, ValueError):
    """A fixer's answer has NaN or infinity."""


def finite_answer(
    fix: Callable[Concatenate[Self, Arguments], Tensor],
) -> Callable[Concatenate[Self, Arguments], Tensor]:
    """Decorator of every fixer's `fix`: an answer with NaN or infinity never leaves it.

    A fixer that computes in half precision and has `widen() -> bool` is asked again in float32,
    with a warning. NotFiniteError where that does not help either.
    """

    @wraps(fix)
    def fix_finite(self: Self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Tensor:
        fixed = fix(self, *args, **kwargs)
        if fixed.isfinite().all():
            return fixed
        if hasattr(self, "widen") and self.widen():
            log.warning(
                "half precision gives NaN or infinity with these weights: going on in float32 "
                "(--dtype float32 or bf16 does so from the start)"
            )
            fixed = fix(self, *args, **kwargs)
        if not fixed.isfinite().all():
            raise NotFiniteError(
                "the fixer answers NaN or infinity, in float32 too: its weights are damaged; get "
                "them again or take others"
            )
        return fixed

    return fix_finite


def mark_infinite(images: Tensor) -> Tensor:
    """The images with NaN in place of infinity, which clamping would hide."""
    return images.masked_fill(images.isinf(), float("nan"))


def blend_by_confidence(renders: Tensor, fixed: Tensor, confidence: Tensor | None) -> Tensor:
    """The render where it is trusted, the fixer's answer elsewhere."""
    if confidence is None:
        return fixed
    return fixed.lerp(renders, confidence[..., None].to(fixed).clamp(0, 1))
