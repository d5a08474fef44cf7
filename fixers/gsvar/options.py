# The options of the GS-VAR fixer, and what its weights' file says before they are loaded.
from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from fixers.fixer import SPEED_ONLY, FixerOptions, Needs
from runtime.arguments import ArgumentError

Mode = Literal["tile", "resize", "native", "auto"]
SHIPPED = Path(__file__).parents[2] / "checkpoints" / "gsvar-mini.safetensors"
ORIGINAL = Path("checkpoints/VARSR.pth")
ORIGINAL_VQVAE = Path("checkpoints/VQVAE.pth")


@dataclass(frozen=True)
class GSVAROptions(FixerOptions):
    """A visual autoregressive model, guided by references.

    Which weights, and how they are run. Raises ValueError for values that cannot be."""

    checkpoint: Path | None = None
    """Weights: our .safetensors, or the original's ar-ckpt-*.pth or vae-ckpt-*.pth (default: those
    that come with this project)."""
    vqvae: Path | None = None
    """Take the VQ-VAE (and bridge) from this file."""
    base: Path | None = None
    """The model that LoRA weights belong to."""
    depth: int | None = field(default=None, metadata=SPEED_ONLY)
    """Transformer blocks that the weights must have (default: whatever they have)."""
    mixing_blocks: list[int] | None = None
    """Blocks in which render and reference see each other (default: as in training)."""
    mode: Mode = "tile"
    """Tiles of the trained size, blended; squashed to that size and back; native, in one piece; or
    auto, in one piece where the shape allows it, else in tiles."""
    bridge: bool | None = None
    """Fuse the render's own details in with the VAE bridge (default: where the weights have one,
    which stage-2 weights do)."""
    colour: Literal["none", "render-adain", "render-wavelet", "reference"] = "none"
    """Move colours towards the render's, or the reference's as the original did."""
    refiner: Literal["ancestral", "ddim", "mean", "none"] | None = None
    """How the last details are drawn (default: as in training; the original's is
    ancestral)."""
    refiner_steps: int = 10
    """Steps of the refiner."""
    seed: int = 42
    """Of the refiner's noise, the same for every call."""
    dtype: Literal["auto", "float32", "bf16", "fp16"] = "float32"
    """Precision of the networks; auto is bf16 where the machine multiplies it, else float32."""
    force_bf16: bool = field(default=False, metadata=SPEED_ONLY)
    """Compute in bf16 even where the machine only emulates it, some 300 times slower."""
    batch_size: int = field(default=4, metadata=SPEED_ONLY)
    """Tiles, or pictures where they are squashed, at a time; lower it if the memory is not
    enough."""
    graphs: bool = field(default=False, metadata=SPEED_ONLY)
    """On a GPU: run the networks as CUDA graphs, made at the first picture of each size."""
    compiled: bool = field(default=False, metadata=SPEED_ONLY)
    """torch.compile the networks first: pays for hundreds of pictures on a GPU."""
    keep: int = field(default=32, metadata=SPEED_ONLY | {"flag": False})
    """Reference tiles whose keys and values are kept between calls, for models whose references
    attend to themselves."""
    decoded: int = field(default=2**21, metadata=SPEED_ONLY | {"flag": False})
    """Pixels decoded in one piece; larger pictures in parts, blended where they overlap."""

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode must be {', '.join(get_args(Mode))}, not {self.mode!r}")
        if self.batch_size < 1:
            raise ArgumentError(
                f"{{argument}} must be at least 1, not {self.batch_size}", "batch_size"
            )
        if self.keep < 0:
            raise ValueError(f"keep must be at least 0, not {self.keep}")

    @property
    def weights(self) -> Path:
        """The file that holds the transformer."""
        return Path(self.checkpoint or SHIPPED)

    @property
    def header(self) -> dict:
        """What the weights' file says of itself (`models.gsvar.loading.inspect`)."""
        changed = self.weights.stat().st_mtime_ns if self.weights.is_file() else 0
        return _read_header(self.weights, changed)

    def needs(self) -> Needs:
        """Those of the weights; of a file that is not there, the original's."""
        config = self.header["config"] if self.weights.is_file() else {}
        return Needs(
            references=True,
            warped=bool(config.get("warped_references")),
            alpha=bool(config.get("render_alpha")),
        )

    def progress(self) -> tuple[int | None, int | None]:
        """Epoch and iteration at which the weights were written, where the file says so."""
        return self.header.get("epoch"), self.header.get("iteration")

    def with_local_files(self) -> GSVAROptions:
        """The same with the original's files below checkpoints/ where they are there and nothing
        else is named: VARSR.pth, and VQVAE.pth for weights without a VQ-VAE."""
        options = self
        if options.checkpoint is None:
            options = replace(options, checkpoint=ORIGINAL if ORIGINAL.is_file() else SHIPPED)
        if options.vqvae is None and ORIGINAL_VQVAE.is_file() and options.weights.is_file():
            parts = options.header["parts"]
            if not any(part.startswith(("vae_local", "vqvae")) for part in parts):
                options = replace(options, vqvae=ORIGINAL_VQVAE)
        return options


@lru_cache(maxsize=2)
def _read_header(weights: Path, changed: int) -> dict:
    from models.gsvar import loading

    return loading.inspect(weights)
