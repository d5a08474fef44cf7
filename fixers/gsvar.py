# The GS-VAR fixer: images of any size through a model that was trained at one.
from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from fixers import colour as colours
from fixers.fixer import blend_by_confidence, validate_inputs
from fixers.graphs import Graphs, Work
from fixers.tiles import Tile, blend, cover
from models.gsvar import GSVAR, loading
from models.gsvar.diffusion import Sampler
from models.gsvar.memory import ReferenceMemory
from models.gsvar.restorer import Restorer
from runtime.precision import choose_dtype
from scenes.cameras import Cameras
from triplets.pictures import resize_planes
from triplets.windows import find_window

log = logging.getLogger(__name__)

Mode = Literal["tile", "resize", "native", "auto"]
LEAST = 4  # latent cells along each side of what is decoded in one piece
SHIPPED = Path(__file__).parents[1] / "checkpoints" / "gsvar-mini.safetensors"


class GSVARFixer:
    """Fixes renders with a GS-VAR model; see `fix` and `fixers.Fixer`.

    mode: "tile" covers the image with tiles of the trained size, restores all tiles of all views in
    batches, blends their latents and decodes the image; "resize" squashes the image to the
    trained size and back; "native" restores it in one piece, where the schedule can take its shape;
    "auto" does that where it can, and tiles elsewhere.
    bridge: fuse the render in while decoding; None: where the weights have a bridge. colour: see
    fixers/colour.py. refiner: None is as the model learnt. seed: of its draws, the same for every
    call. batch_size: tiles at a time. keep: reference tiles whose keys and values are kept between
    calls, for models whose references attend to themselves. decoded: pixels decoded in one piece;
    larger pictures in parts that are blended where they overlap. graphs: on CUDA, run the networks
    as CUDA graphs, one for each size of batch and picture. compiled: torch.compile the
    transformer's blocks, on a GPU the VQ-VAE too (10 seconds or more at the first picture).

    A model with `config.warped_references` takes references that lie in the renders' own views
    already (`splats.warp`), the render where they have nothing to show.
    """

    def __init__(
        self,
        model: GSVAR,
        *,
        mode: Mode = "tile",
        bridge: bool | None = None,
        colour: colours.Colour = "none",
        refiner: Sampler | None = None,
        refiner_steps: int = 10,
        batch_size: int = 4,
        seed: int = 42,
        keep: int = 32,
        decoded: int = 2**21,
        graphs: bool = False,
        compiled: bool = False,
    ):
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be {', '.join(get_args(Mode))}, not {mode!r}")
        bridge = model.has_bridge if bridge is None else bridge
        if bridge and not model.has_bridge:
            raise ValueError(
                "a VAE-bridge is asked for, but the weights have none: give a stage-2 file "
                "(vae-ckpt-*.pth), or leave the bridge off"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        least = (LEAST * model.config.vqvae.stride) ** 2
        if not (isinstance(decoded, int) and decoded >= least):
            raise ValueError(f"decoded must be a whole number from {least}, not {decoded}")
        if keep < 0:
            raise ValueError(f"keep must be at least 0, not {keep}")
        refiner = refiner or model.config.sampler
        if refiner != "none" and not 2 <= refiner_steps <= 1000:
            raise ValueError(f"refiner_steps must lie between 2 and 1000, not {refiner_steps}")
        self.model, self.mode, self.bridge, self.colour = model, mode, bridge, colour
        self.refiner, self.refiner_steps = refiner, refiner_steps
        self.batch_size, self.seed, self.keep, self.decoded = batch_size, seed, keep, decoded
        self._memories: OrderedDict[tuple, ReferenceMemory] = OrderedDict()
        self.graphs = Graphs() if graphs else None
        if compiled:
            if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
                raise ValueError("--compiled needs a C++ compiler (g++ or clang++): install one")
            compile_parts(model)
        self.restorer = Restorer(model)

    @classmethod
    def load(
        cls,
        checkpoint: str | Path | None = None,
        *,
        vqvae: str | Path | None = None,
        base: str | Path | None = None,
        depth: int | None = None,
        mixing_blocks: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str = torch.float32,
        force_bf16: bool = False,
        **options,
    ) -> GSVARFixer:
        """The fixer with the weights of a file (`models.gsvar.loading.load`), on the best device;
        without one, with those that come with this project.

        mixing_blocks: where render and references see each other, if not as the file tells. dtype:
        of the networks (`runtime.precision.choose_dtype`).
        """
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = choose_dtype(dtype, device, force_bf16=force_bf16)
        model = loading.load(
            checkpoint or SHIPPED, vqvae=vqvae, base=base, depth=depth, device=device, dtype=dtype
        )
        if mixing_blocks is not None:
            model.mix_in(mixing_blocks)
        return cls(model, **options)

    def to(self, device: torch.device | str) -> GSVARFixer:
        """The same on another device."""
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if self.model.device != device:
            self.model.to(device)
            self.restorer = Restorer(self.model)
            self._memories.clear()
            if self.graphs is not None:
                self.graphs.clear()
        return self

    @torch.no_grad()
    def fix(
        self,
        renders: Tensor,
        references: Tensor | None = None,
        *,
        confidence: Tensor | None = None,
        alphas: Tensor | None = None,
        cameras: Cameras | None = None,
        reference_cameras: list[Cameras] | None = None,
        depths: Tensor | None = None,
    ) -> Tensor:
        """See `fixers.Fixer`. Returned on the renders' device.

        With the views' `cameras` (N of them, at the renders' size) and `reference_cameras` (for
        each view R cameras, at that size too), a tile's window in a reference is where its content
        is; with `depths` [N,H,W] by the surface, else by the turn alone. Without them it is the
        tile's own.
        """
        renders, references = validate_inputs(renders, references, confidence, alphas)
        if not len(renders):
            return renders
        given = (renders, references, confidence, alphas, cameras, reference_cameras, depths)
        with told_when_out_of_memory():
            fixed = [
                self._fix(*(None if x is None else x[at] for x in given))
                for at in self._batches(len(renders))  # memory does not grow with the views
            ]
        return torch.cat(fixed)

    def _fix(
        self,
        renders: Tensor,
        references: Tensor | None,
        confidence: Tensor | None,
        alphas: Tensor | None,
        cameras: Cameras | None,
        reference_cameras: list[Cameras] | None,
        depths: Tensor | None,
    ) -> Tensor:
        """The same, of a few views."""
        alphas = None if alphas is None else alphas.float().clamp(0, 1)
        if self.mode == "resize":
            fixed = self._resized(renders, references, alphas)
        else:
            windows = Windows(cameras, reference_cameras, depths)
            fixed = self._whole(renders, references, alphas, windows)
        fixed = fixed.to(renders.device)
        fixed = colours.correct(fixed, renders, references, self.colour)
        return blend_by_confidence(renders, fixed, confidence)

    # modes ------------------------------------------------------------------------------------

    def _resized(self, renders: Tensor, references: Tensor | None, alphas: Tensor | None) -> Tensor:
        """Squashed to the trained size and back."""
        size, (H, W) = self.model.config.image_size, renders.shape[1:3]
        images = resize_planes(self._inside(renders), size)
        if references is not None:
            guides = resize_planes(self._inside(references.flatten(0, 1)), size)
            references = guides.unflatten(0, references.shape[:2])
        if alphas is not None:
            alphas = resize_planes(self._inside(alphas[..., None]), size)
        f_hat = self._restore(images, None if references is None else self._encoded(references))
        return outside(resize_planes(self._decode(f_hat, images, references, alphas), (H, W)))

    def _whole(
        self,
        renders: Tensor,
        references: Tensor | None,
        alphas: Tensor | None,
        windows: Windows,
    ) -> Tensor:
        """In tiles, or as one tile of the image's own shape ("native")."""
        H, W = renders.shape[1:3]
        stride = self.model.config.vqvae.stride
        rows, columns = -(-H // stride), -(-W // stride)
        tile = self.model.config.scales.latent
        if self.mode == "native":
            if not self.model.accepts(rows, columns):
                raise ValueError(
                    f"{W}x{H} pixels are too far from the {tile[1] * stride}x{tile[0] * stride} "
                    "that the model was made for: use --mode tile"
                )
            tile = rows, columns
        elif self.mode == "auto" and self.model.accepts(rows, columns):
            tile = rows, columns
        rows, columns = max(rows, tile[0]), max(columns, tile[1])
        images = pad(self._inside(renders), rows * stride, columns * stride)
        guides = None
        if references is not None:
            flat = pad(self._inside(references.flatten(0, 1)), rows * stride, columns * stride)
            guides = flat.unflatten(0, references.shape[:2])
        if alphas is not None:
            alphas = pad(self._inside(alphas[..., None]), rows * stride, columns * stride)

        tiles = cover(rows, columns, tile)
        jobs = [(t, n) for t in range(len(tiles)) for n in range(len(images))]
        latents: list[Tensor] = []
        for at in self._batches(len(jobs)):
            batch = jobs[at]
            parts = [cut(images[n], tiles[t], tile, stride) for t, n in batch]
            seen = None
            if guides is not None:
                limit = rows - tile[0], columns - tile[1]
                pictures = [
                    cut(guide, windows.of(tiles[t], tile, stride, n, r, limit), tile, stride)
                    for t, n in batch
                    for r, guide in enumerate(guides[n])
                ]
                seen = self._encoded(torch.stack(pictures).unflatten(0, (len(batch), -1)))
            latents.append(self._restore(torch.stack(parts), seen))
        parts = torch.cat(latents).unflatten(0, (len(tiles), len(images)))
        f_hat = blend(parts, tiles, rows, columns)
        decoded = []
        # pictures of one tile fill a GPU only together; a CPU's caches hold one
        together = self.batch_size if len(tiles) == 1 and f_hat.is_cuda else 1
        for start in range(0, len(images), together):
            at = slice(start, start + together)
            guide = None if guides is None else guides[at]
            alpha = None if alphas is None else alphas[at]
            decoded.append(self._decode_in_parts(f_hat[at], images[at], guide, alpha))
        return outside(torch.cat(decoded)[..., :H, :W])

    # the model --------------------------------------------------------------------------------

    def _inside(self, images: Tensor) -> Tensor:
        """[N,H,W,C] in [0,1] as the networks take it: [N,C,H,W] in [-1,1] on their device."""
        return images.permute(0, 3, 1, 2).to(self.model.device) * 2 - 1

    def _batches(self, count: int) -> Iterator[slice]:
        for start in range(0, count, self.batch_size):
            yield slice(start, min(start + self.batch_size, count))

    def _run(self, name: str, work: Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        return work(*inputs) if self.graphs is None else self.graphs(name, work, *inputs)

    def _draws(self, images: Tensor) -> Tensor:
        """The refiner's normal draws [draws, B*tokens, Cz]. Each tile gets the same, so batches do
        not change results."""
        generator = torch.Generator().manual_seed(self.seed)
        count = {"none": 0, "ancestral": self.refiner_steps}.get(self.refiner, 1)
        tokens = images.shape[-2] * images.shape[-1] // self.model.config.vqvae.stride**2
        shape = tokens, self.model.config.latent_channels
        draws = [torch.randn(shape, generator=generator) for _ in range(count)]
        stacked = torch.stack(draws) if draws else torch.empty(0, *shape)
        return stacked.repeat(1, len(images), 1).to(images.device)

    def _restore(self, images: Tensor, guides: Tensor | ReferenceMemory | None) -> Tensor:
        """Latents [B,C,h,w]."""
        memory = isinstance(guides, ReferenceMemory)
        given = guides.tensors if memory else () if guides is None else (guides,)

        def work(images: Tensor, draws: Tensor, *given: Tensor) -> tuple[Tensor]:
            seen = self._memory(given, images) if memory else given[0] if given else None
            f_hat = self.restorer.restore(
                images,
                seen,
                draw=lambda k, shape: draws[k],
                refiner=self.refiner,
                refiner_steps=self.refiner_steps,
            )
            return (f_hat,)

        return self._run("restore", work, images, self._draws(images), *given)[0]

    def _decode(
        self, f_hat: Tensor, images: Tensor, guides: Tensor | None, alpha: Tensor | None
    ) -> Tensor:
        """Pictures of latents, their renders [B,3,H,W], references [B,R,3,H,W] and alpha
        [B,1,H,W] fused in."""
        given = {}
        if self.bridge:
            given = {"guide": None if guides is None else guides[:, 0], "alpha": alpha}
            given = {"render": images} | {k: x for k, x in given.items() if x is not None}

        def work(f_hat: Tensor, *tensors: Tensor) -> tuple[Tensor]:
            fused = dict(zip(given, tensors, strict=True))
            return (self.model.decode(f_hat, bridge=self.bridge, **fused),)

        return self._run(" ".join(("decode", *given)), work, f_hat, *given.values())[0]

    def _decode_in_parts(
        self, f_hat: Tensor, images: Tensor, guides: Tensor | None, alpha: Tensor | None
    ) -> Tensor:
        """`_decode`, of large pictures in overlapping parts, so that memory does not grow with
        them."""
        stride = self.model.config.vqvae.stride
        rows, columns = f_hat.shape[-2:]
        size = within(rows, columns, self.decoded // stride**2)
        if size == (rows, columns):
            return self._decode(f_hat, images, guides, alpha)
        tiles, parts = cover(rows, columns, size), []
        for tile in tiles:
            given = [
                None if x is None else cut(x, tile, size, stride) for x in (images, guides, alpha)
            ]
            parts.append(self._decode(cut(f_hat, tile, size, 1), *given))
        places = [Tile(tile.top * stride, tile.left * stride) for tile in tiles]
        return blend(torch.stack(parts), places, rows * stride, columns * stride)

    def _encoded(self, guides: Tensor) -> Tensor | ReferenceMemory:
        """References [B,R,3,h,w] as the model takes them: encoded, each picture once, if it can."""
        if self.model.config.ref_attends != "self":
            return guides
        keys = [[fingerprint(picture) for picture in row] for row in guides]
        named = zip((k for row in keys for k in row), guides.flatten(0, 1), strict=True)
        new = {key: picture for key, picture in named if key not in self._memories}
        if new:
            pictures = torch.stack(list(new.values()))[:, None]

            def work(pictures: Tensor) -> tuple[Tensor, ...]:
                return self.restorer.encode_references(pictures).tensors

            tensors = self._run("encode", work, pictures)
            for i, key in enumerate(new):
                own = [t[i : i + 1].clone() for t in tensors]
                self._memories[key] = self._memory(own, pictures)
        grid = [[self._memories[key] for key in row] for row in keys]
        for key in (key for row in keys for key in row):
            self._memories.move_to_end(key)
        while len(self._memories) > max(1, self.keep):
            self._memories.popitem(last=False)
        return ReferenceMemory.stacked(grid)

    def _memory(self, tensors: Sequence[Tensor], images: Tensor) -> ReferenceMemory:
        """What these are the keys and values of, for images [...,H,W]."""
        mixes = self.model.transformer.mixes
        return ReferenceMemory.of(tensors, mixes, tuple(images.shape[-2:]))


def compile_parts(model: GSVAR) -> None:
    """Compile a model, and let torch keep a program for each scale: with and without references,
    and for some sizes of batches."""
    limit = 4 * len(model.config.scales) + 8
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
    model.compile_parts()


def fingerprint(picture: Tensor) -> tuple[bytes, tuple[int, ...]]:
    """What tells pictures apart."""
    data = picture.cpu().contiguous().numpy().tobytes()
    return hashlib.blake2b(data, digest_size=16).digest(), tuple(picture.shape)


class Windows:
    """Where each tile looks in each reference."""

    def __init__(
        self,
        cameras: Cameras | None,
        reference_cameras: list[Cameras] | None,
        depths: Tensor | None,
    ):
        self.cameras, self.reference_cameras, self.depths = cameras, reference_cameras, depths

    def of(
        self, tile: Tile, size: tuple[int, int], stride: int, n: int, r: int, limit: tuple[int, int]
    ) -> Tile:
        """The window of view n's tile in its reference r, inside the image."""
        if self.cameras is None or self.reference_cameras is None:
            return tile
        depth = None if self.depths is None else self.depths[n]
        top, left = find_window(
            (tile.top * stride, tile.left * stride),
            (size[0] * stride, size[1] * stride),
            self.cameras[n],
            self.reference_cameras[n][r],
            depth,
            step=stride,
            within=((limit[0] + size[0]) * stride, (limit[1] + size[1]) * stride),
        )
        return Tile(top // stride, left // stride)


def outside(images: Tensor) -> Tensor:
    """[N,3,H,W] in [-1,1] as [N,H,W,3] in [0,1], float32."""
    return ((images.float() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)


def pad(images: Tensor, height: int, width: int) -> Tensor:
    """[N,3,H,W] with the last row and column repeated to the right and below."""
    H, W = images.shape[-2:]
    return F.pad(images, (0, width - W, 0, height - H), mode="replicate")


def cut(image: Tensor, tile: Tile, size: tuple[int, int], stride: int) -> Tensor:
    """A tile's pixels [...,h,w] of an image [...,H,W]."""
    top, left = tile.top * stride, tile.left * stride
    return image[..., top : top + size[0] * stride, left : left + size[1] * stride]


def within(rows: int, columns: int, cells: int) -> tuple[int, int]:
    """Rows and columns of the largest part that has about `cells` cells at most, near a square."""
    if rows * columns <= cells:
        return rows, columns
    side = max(1, math.isqrt(cells))
    if min(rows, columns) <= side:
        side = max(1, cells // min(rows, columns))
    return min(rows, side), min(columns, side)


@contextmanager
def told_when_out_of_memory() -> Iterator[None]:
    """A lack of memory as a sentence that says what lowers the need."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        lacking = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not lacking and "not enough memory" not in text and "can't allocate" not in text:
            raise
        raise ValueError(
            "the memory is not enough: lower --batch_size, take --dtype bf16, or smaller images "
            f"(--mode resize needs the least) [{text.splitlines()[0][:120]}]"
        ) from None
