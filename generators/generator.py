# The call that every generator answers: posed photos and cameras in, images of those cameras out.
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from scenes.cameras import Cameras
from scenes.scene import Scene
from splats.rasterize import Render

Renderer = Callable[[Cameras], Render]
"""Renders the current splats for cameras of one size."""


class ScenePhotos(Sequence):
    """Some photos of a scene as float32 [H,W,3] in [0,1] over a background [3] (default: white),
    converted when they are read."""

    def __init__(self, scene: Scene, views: Sequence[int], background: Tensor | None) -> None:
        self.scene, self.views, self.background = scene, tuple(views), background

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> Tensor:
        return self.scene.image(self.views[index], self.background)


@dataclass(frozen=True)
class References:
    """R posed photos.

    images: float32 [H,W,3] in [0,1] each; sizes may differ. cameras: of their sizes. names: as the
    capture has them. masks: bool [H,W] each, False where the photo shows what it should not, or
    None; such pixels guide nothing. None: no photo has any.
    """

    images: Sequence[Tensor]
    cameras: Cameras
    names: tuple[str, ...]
    masks: Sequence[Tensor | None] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_scene(
        cls, scene: Scene, views: Sequence[int], background: Tensor | None = None
    ) -> References:
        """The photos of these views (indices into the scene), read on demand; those with alpha over
        a background [3] (default: white), which should be the renders' too."""
        names = tuple(scene.names[i] for i in views)
        masks = None if scene.masks is None else [scene.mask(i) for i in views]
        photos = ScenePhotos(scene, views, background)
        return cls(photos, scene.cameras[list(views)], names, masks)


@dataclass(frozen=True)
class Generated:
    """A generated view, on the CPU.

    image: float32 [H,W,3] in [0,1].
    confidence: float32 [H,W] in [0,1], the weight of each pixel in training.
    pictures: what people may want to see beside it, [H,W,3] or [H,W] by name; "render" is the view
        it was made from, "alpha" that view's opacity, "reference" its best photo.
    references: names of the photos that guided it.
    agreement: mean error of the render to a photo that did not guide the view, over that of the
        image: above 1 the image agrees better. None where no photo could check it.
    error: mean squared error of the render to that photo, or None.
    consistency: share of the pixels visible in the nearest other generated view that this one does
        not contradict. None where there is no such view.
    seconds: time spent on this view, by part.
    """

    image: Tensor
    confidence: Tensor
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    agreement: float | None = None
    error: float | None = None
    consistency: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


class Generator(Protocol):
    """Anything that makes views of a scene. One with networks may also have `to(device)`.

    title: what the report calls its views.
    settings: what tells this generator from others, by flag name; a run records it.
    uses_references: whether views without any reference are an error of the user's.
    starts_from_renders: whether a view is what the splats show, mended: one that no photo could
        check is then trusted all the same.
    """

    title: str
    settings: Mapping[str, object]
    uses_references: bool
    starts_from_renders: bool

    def generate(
        self, references: References, cameras: Cameras, *, render: Renderer | None = None
    ) -> list[Generated]:
        """One view for each of N cameras, in their order.

        `render` draws the splats as they are now, for generators that start from a render; others
        ignore it. FloatingPointError if a result is not finite.
        """
        ...
