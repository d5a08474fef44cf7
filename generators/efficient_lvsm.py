# Views from posed photos in one pass by Efficient-LVSM, also of a capture without splats. Beside
# splats each view is judged like a fixed render.
from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from generators.generator import Generated, References, Renderer
from generators.guides import Guide, RenderedView
from generators.render_then_fix import RenderThenFix
from generators.session import Session
from models.checkpoints.registry import load as load_checkpoint
from models.checkpoints.registry import system_of
from models.efficient_lvsm import EfficientLVSM
from runtime.arguments import ArgumentError
from runtime.precision import choose_dtype
from scenes.cameras import Cameras

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ROOT / "checkpoints" / "efficient-lvsm-mini.safetensors"


def load_model(
    checkpoint: Path | str | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str = "auto",
) -> EfficientLVSM:
    """A network in eval mode; None: the included weights.

    FileNotFoundError or ValueError, naming the file, for one that cannot be read or is of another
    system."""
    if checkpoint is None and not SHIPPED.is_file():
        raise ArgumentError(
            f"{SHIPPED} is not included yet: name weights, such as efficient_lvsm_res256.pt "
            "({argument})",
            "checkpoint",
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _, model = load_checkpoint(checkpoint or SHIPPED)
    if not isinstance(model, EfficientLVSM):
        raise ValueError(
            f"{checkpoint} is a checkpoint of {system_of(model).title}, not of Efficient-LVSM"
        )
    stated = re.search(r"res(\d{2,4})(?!\d)", Path(checkpoint or SHIPPED).name)
    if stated and int(stated[1]) != model.config.image_size:  # the tensors are the same
        log.info("%s: taken as trained on %s pixels, as its name says", checkpoint, stated[1])
        model.config = replace(model.config, image_size=int(stated[1]))
    return model.to(device, choose_dtype(dtype, device))


def load(
    checkpoint: Path | str | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str = "auto",
    capacity: int = 16,
) -> Session:
    """A session with the weights of a file (None: the included ones). Raises as `load_model`."""
    return Session(load_model(checkpoint, device=device, dtype=dtype), capacity=capacity)


class EfficientLVSMViews(RenderThenFix):
    """New views from up to `views` photos, indices evenly over those that there are.

    Beside splats (with `render`) each is weighed and checked by what photos warped through their
    depth say, as a fixed render is; without, it is taken as it is.
    """

    title = "Efficient-LVSM"
    starts_from_renders = False

    def __init__(
        self,
        model: EfficientLVSM,
        *,
        views: int = 8,
        references: int = 1,
        select_by: Literal["covisibility", "pose"] = "covisibility",
        confident: bool = True,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(
            None,
            references=references,
            select_by=select_by,
            confident=confident,
            settings=settings,
        )
        if views < 1:
            raise ValueError(f"--views {views} must be at least 1")
        self.model, self.count = model, views
        self.session: Session | None = None

    def to(self, device: torch.device | str) -> None:
        """Move the network."""
        self.model.to(device)

    @torch.no_grad()
    def generate(
        self, references: References, cameras: Cameras, *, render: Renderer | None = None
    ) -> list[Generated]:
        """Each camera's view. ValueError without photos or where all cameras are at one place;
        FloatingPointError if a view is not finite."""
        self.session = self.begin(references, cameras)
        if render is not None:
            return super().generate(references, cameras, render=render)
        return [
            Generated(image, torch.ones(image.shape[:2]), {}, self.names)
            for image in self.session.render(cameras)
        ]

    def begin(self, references: References, cameras: Cameras) -> Session:
        """A session with photos of the references, in the frame of these and of all cameras."""
        if not len(references):
            raise ValueError("Efficient-LVSM needs at least one photo")
        indices = torch.linspace(0, len(references) - 1, min(self.count, len(references)))
        indices = indices.round().long().tolist()
        session = Session(self.model, capacity=len(indices))
        own = references.cameras[indices]
        session.set_frame(Cameras.concatenate([own, cameras]))
        session.add_views([references.images[i] for i in indices], own)
        self.names = tuple(references.names[i] for i in indices)
        return session

    def make_images(
        self, cameras: Cameras, views: list[RenderedView], guides: list[list[Guide]]
    ) -> Tensor:
        """The session's views [N,H,W,3] of the cameras, which are of one size."""
        return torch.stack(self.session.render(cameras))
