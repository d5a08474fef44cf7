# The GS-VAR fixer: images of any size through a model that was trained at one.
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from fixers.colour import correct
from fixers.fixer import (
    Needs,
    blend_by_confidence,
    finite_answer,
    mark_infinite,
    validate_inputs,
)
from fixers.graphs import Graphs, Work
from fixers.gsvar.options import GSVAROptions
from fixers.gsvar.references import ReferenceMemories
from fixers.tiling import Input, Tile, batches, grid_of, largest_part, pad, run
from models.gsvar import GSVAR, loading
from models.gsvar.memory import ReferenceMemory
from models.gsvar.restorer import Restorer
from models.layers.winograd import prepare_kernels
from runtime.kernels import wait_for_kernels
from runtime.precision import choose_dtype
from scenes.cameras import Cameras
from triplets.pictures import resize_planes
from triplets.windows import find_window

LEAST = 4  # latent cells along each side of what is decoded in one piece


class GSVARFixer:
    """Fixes renders with a GS-VAR model; see `fix` and `fixers.Fixer`.

    Made of a model and GSVAROptions, or single options by name. mode: "tile" covers the image with
    tiles of the trained size, restores all tiles of all views in batches, blends their latents and
    decodes the image; "resize" squashes the image to the trained size and back; "native" restores
    it in one piece, where the scales can take its shape; "auto" does that where it can, and tiles
    elsewhere. `options` are those given, with the model's own bridge and refiner filled in.
    """

    def __init__(self, model: GSVAR, options: GSVAROptions | None = None, **changes: object):
        options = replace(options or GSVAROptions(), **changes)
        bridge = model.has_bridge if options.bridge is None else options.bridge
        if bridge and not model.has_bridge:
            raise ValueError(
                "a VAE-bridge is requested, but the weights have none: give a stage-2 file "
                "(vae-ckpt-*.pth), or leave the bridge off"
            )
        least = (LEAST * model.config.vqvae.stride) ** 2
        if not (isinstance(options.decoded, int) and options.decoded >= least):
            raise ValueError(f"decoded must be a whole number from {least}, not {options.decoded}")
        refiner, steps = options.refiner or model.config.sampler, options.refiner_steps
        if refiner != "none" and not 2 <= steps <= 1000:
            raise ValueError(f"refiner_steps must lie between 2 and 1000, not {steps}")
        self.model, self.stride = model, model.config.vqvae.stride
        self.options = replace(options, bridge=bridge, refiner=refiner)
        self.needs = Needs(
            references=True,
            warped=model.config.warped_references,
            alpha=model.config.render_alpha,
        )
        if options.compiled:
            if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
                raise ValueError("--compiled needs a C++ compiler (g++ or clang++): install one")
            compile_parts(model)
        self.restorer = Restorer(model)
        self.graphs = Graphs() if options.graphs else None
        self.memories = ReferenceMemories(
            lambda pictures: self._run("encode", self._encode, pictures),
            model.transformer.mixes,
            options.keep,
        )

    @classmethod
    def load(cls, options: GSVAROptions, device: torch.device | str | None = None) -> GSVARFixer:
        """The fixer with the weights that the options name, on the best device by default."""
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        model = loading.load(
            options.weights,
            vqvae=options.vqvae,
            base=options.base,
            depth=options.depth,
            device=device,
            dtype=choose_dtype(options.dtype, device, force_bf16=options.force_bf16),
        )
        if options.mixing_blocks is not None:
            model.mix_in(options.mixing_blocks)
        prepare_kernels(model)
        return cls(model, options)

    def to(self, device: torch.device | str) -> GSVARFixer:
        """The same on another device."""
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if self.model.device != device:
            self.model.to(device)
            self._start_over()
        return self

    def widen(self) -> bool:
        """Compute in float32 from now on; whether it did not already."""
        if self.model.word.weight.dtype not in (torch.float16, torch.bfloat16):
            return False
        self.model.set_precision(torch.float32)
        self._start_over()
        return True

    def _start_over(self) -> None:
        """Forget what was computed from weights that moved or changed."""
        self.restorer = Restorer(self.model)
        self.memories.clear()
        if self.graphs is not None:
            self.graphs.clear()

    @finite_answer
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
        """See `fixers.Fixer`. With `needs.warped` references lie in the renders' own views, the
        render itself where they have nothing to show.

        In tiles, with `cameras` (N, at the renders' size) and `reference_cameras` (for each view R
        cameras, at that size too), a tile's window in a reference is where its content is; with
        `depths` [N,H,W] by the surface, else by the turn alone. Without them it is the tile's own.
        """
        renders, references = validate_inputs(renders, references, confidence, alphas)
        if not len(renders):
            return renders
        wait_for_kernels()
        given = (renders, references, confidence, alphas, cameras, reference_cameras, depths)
        with explain_lack_of_memory():
            fixed = [
                self._fix(*(None if x is None else x[at] for x in given))
                for at in batches(len(renders), self.options.batch_size)  # memory stays bounded
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
        images = self._to_planes(renders)
        guides = None if references is None else self._to_planes(references)
        alpha = None
        if alphas is not None:
            alpha = self._to_planes(alphas.float().clamp(0, 1)[..., None])
        if self.options.mode == "resize":
            fixed = self._fix_resized(images, guides, alpha)
        else:
            windows = Windows(cameras, reference_cameras, depths)
            fixed = self._fix_at_full_size(images, guides, alpha, windows)
        fixed = from_planes(fixed).to(renders.device)
        fixed = correct(fixed, renders, references, self.options.colour)
        return blend_by_confidence(renders, fixed, confidence)

    # modes: images [N,3,H,W], guides [N,R,3,H,W] and alpha [N,1,H,W] in [-1,1] ------------------

    def _fix_resized(self, images: Tensor, guides: Tensor | None, alpha: Tensor | None) -> Tensor:
        """Squashed to the trained size and back."""
        size, whole = self.model.config.image_size, tuple(images.shape[-2:])
        images = resize_planes(images, size)
        if guides is not None:
            guides = resize_planes(guides.flatten(0, 1), size).unflatten(0, guides.shape[:2])
        if alpha is not None:
            alpha = resize_planes(alpha, size)
        f_hat = self._restore(images, None if guides is None else self._remember(guides))
        return resize_planes(self._decode(f_hat, images, guides, alpha), whole)

    def _fix_at_full_size(
        self, images: Tensor, guides: Tensor | None, alpha: Tensor | None, windows: Windows
    ) -> Tensor:
        """In tiles, or as one tile of the image's own shape."""
        H, W = images.shape[-2:]
        tile = self._choose_tile(H, W)
        rows, columns = grid_of(H, W, tile, self.stride)
        size = rows * self.stride, columns * self.stride
        images, guides, alpha = (
            None if x is None else pad(x, *size) for x in (images, guides, alpha)
        )
        f_hat = self._restore_tiles(images, guides, (rows, columns), tile, windows)
        # pictures of one tile fill a GPU only together; a CPU's caches hold one
        one_piece = tile == (rows, columns) and f_hat.is_cuda
        decoded = [
            self._decode_in_parts(
                f_hat[at],
                images[at],
                None if guides is None else guides[at],
                None if alpha is None else alpha[at],
            )
            for at in batches(len(images), self.options.batch_size if one_piece else 1)
        ]
        return torch.cat(decoded)[..., :H, :W]

    def _choose_tile(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a tile's latent for images of this size. ValueError where "native"
        cannot be."""
        own = self.model.config.scales.latent
        whole = -(-height // self.stride), -(-width // self.stride)
        if self.options.mode == "tile":
            return own
        if self.model.accepts(*whole):
            return whole
        if self.options.mode == "native":
            raise ValueError(
                f"{width}x{height} pixels are too far from the "
                f"{own[1] * self.stride}x{own[0] * self.stride} "
                "that the model was made for: use --mode tile"
            )
        return own

    def _restore_tiles(
        self,
        images: Tensor,
        guides: Tensor | None,
        grid: tuple[int, int],
        tile: tuple[int, int],
        windows: Windows,
    ) -> Tensor:
        """Latents [N,C,rows,columns] on a grid, from tiles of so many rows and columns."""
        references = range(0 if guides is None else guides.shape[1])
        inputs = [Input(images, self.stride)]
        for r in references:
            place = windows.places(r, tile, self.stride, images.shape[-2:])
            inputs.append(Input(guides[:, r], self.stride, place))

        def restore(parts: Tensor, *references: Tensor) -> Tensor:
            seen = self._remember(torch.stack(references, 1)) if references else None
            return self._restore(parts, seen)

        return run(restore, inputs, grid, tile, self.options.batch_size)

    # the model ---------------------------------------------------------------------------------

    def _to_planes(self, images: Tensor) -> Tensor:
        """[...,H,W,C] in [0,1] as the networks take it: [...,C,H,W] in [-1,1] on their device."""
        return images.movedim(-1, -3).to(self.model.device) * 2 - 1

    def _run(self, name: str, work: Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        return work(*inputs) if self.graphs is None else self.graphs(name, work, *inputs)

    def _draw_noise(self, images: Tensor) -> Tensor:
        """The refiner's normal draws [draws, B*tokens, Cz]. Each tile gets the same, so batches do
        not change results."""
        generator = torch.Generator().manual_seed(self.options.seed)
        count = {"none": 0, "ancestral": self.options.refiner_steps}.get(self.options.refiner, 1)
        tokens = images.shape[-2] * images.shape[-1] // self.stride**2
        shape = tokens, self.model.config.latent_channels
        draws = [torch.randn(shape, generator=generator) for _ in range(count)]
        stacked = torch.stack(draws) if draws else torch.empty(0, *shape)
        return stacked.repeat(1, len(images), 1).to(images.device)

    def _restore(self, images: Tensor, references: Tensor | ReferenceMemory | None) -> Tensor:
        """Latents [B,C,h,w] of images [B,3,H,W] of a size that the scales can take."""
        remembered = isinstance(references, ReferenceMemory)
        given = () if references is None else (references,)
        if remembered:
            given = references.tensors

        def work(images: Tensor, draws: Tensor, *given: Tensor) -> tuple[Tensor]:
            seen = given[0] if given else None
            if remembered:
                seen = self.memories.unpack(given, images)
            f_hat = self.restorer.restore(
                images,
                seen,
                draw=lambda k, shape: draws[k],
                refiner=self.options.refiner,
                refiner_steps=self.options.refiner_steps,
            )
            return (f_hat,)

        return self._run("restore", work, images, self._draw_noise(images), *given)[0]

    def _remember(self, guides: Tensor) -> Tensor | ReferenceMemory:
        """References [B,R,3,h,w] as the restorer takes them: encoded once each, if it can."""
        if self.model.config.ref_attends != "self":
            return guides
        return self.memories(guides)

    def _encode(self, pictures: Tensor) -> tuple[Tensor, ...]:
        return self.restorer.encode_references(pictures).tensors

    def _decode(
        self, f_hat: Tensor, images: Tensor, guides: Tensor | None, alpha: Tensor | None
    ) -> Tensor:
        """Pictures of latents; with the bridge, renders, first reference and alpha fused in."""
        given = {}
        if self.options.bridge:
            given = {"guide": None if guides is None else guides[:, 0], "alpha": alpha}
            given = {"render": images} | {k: x for k, x in given.items() if x is not None}

        def work(f_hat: Tensor, *tensors: Tensor) -> tuple[Tensor]:
            fused = dict(zip(given, tensors, strict=True))
            return (self.model.decode(f_hat, bridge=self.options.bridge, **fused),)

        return self._run(" ".join(("decode", *given)), work, f_hat, *given.values())[0]

    def _decode_in_parts(
        self, f_hat: Tensor, images: Tensor, guides: Tensor | None, alpha: Tensor | None
    ) -> Tensor:
        """`_decode`, of large pictures in overlapping parts, so that memory does not grow with
        them."""
        grid = tuple(f_hat.shape[-2:])
        size = largest_part(*grid, self.options.decoded // self.stride**2)
        if size == grid:
            return self._decode(f_hat, images, guides, alpha)
        pixels = (None if x is None else Input(x, self.stride) for x in (images, guides, alpha))
        return run(self._decode, [Input(f_hat), *pixels], grid, size, len(images))


class Windows:
    """Where the tiles of renders look in their references, as far as cameras tell."""

    def __init__(
        self,
        cameras: Cameras | None,
        reference_cameras: list[Cameras] | None,
        depths: Tensor | None,
    ):
        self.cameras, self.reference_cameras, self.depths = cameras, reference_cameras, depths

    def places(self, r: int, tile: tuple[int, int], stride: int, within: tuple[int, int]):
        """Which place in reference r shows what a view's tile shows (`tiling.Input.place`); None
        without cameras, for the tile's own."""
        if self.cameras is None or self.reference_cameras is None:
            return None

        def place(n: int, at: Tile) -> Tile:
            top, left = find_window(
                (at.top * stride, at.left * stride),
                (tile[0] * stride, tile[1] * stride),
                self.cameras[n],
                self.reference_cameras[n][r],
                None if self.depths is None else self.depths[n],
                step=stride,
                within=within,
            )
            return Tile(top // stride, left // stride)

        return place


def from_planes(images: Tensor) -> Tensor:
    """[N,3,H,W] in [-1,1] as [N,H,W,3] in [0,1], float32."""
    return ((mark_infinite(images.float()) + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)


def compile_parts(model: GSVAR) -> None:
    """Compile a model, and let torch keep a program for each scale: with and without references,
    and for some sizes of batches."""
    limit = 4 * len(model.config.scales) + 8
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
    model.compile_parts()


@contextmanager
def explain_lack_of_memory() -> Iterator[None]:
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
