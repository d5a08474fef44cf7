# The flags of VQVAE_train.py, VAR_train.py and VAE_train.py: the original's, and ours.
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from fixers.testing.flags import ALIASES, TESTING
from runtime.flags import parse_flags
from training import flags as generic
from training.flags import Run, Triplets

Flags = TypeVar("Flags", bound="TrainFlags")


@dataclass(frozen=True)
class Model:
    """Which model is trained."""

    var_pretrain_path: Path = Path("checkpoints/VARSR.pth")
    """Weights that training starts from: VARSR.pth, ar-ckpt-*.pth, ours."""
    vae_model_path: Path | None = None
    """VQ-VAE (default: that of var_pretrain_path, else checkpoints/VQVAE.pth)."""
    preset: str | None = None
    """Start a new transformer of these sizes instead: original-d24, original-d16, small, mini
    (with warped references and alpha), tiny, or a .json of GSVARConfig's fields."""
    depth: int | None = None
    """Transformer blocks (default: those of the weights or the preset)."""
    pn: str | None = None
    """Schedule of scales, 1_2_3_4_6_9_13_18_24_32 (default: that of the weights or preset)."""
    ref_attends: Literal["all", "self"] | None = None
    """What references see: everything, as the original, or themselves, so that they can be
    encoded once and kept (default: as the weights or the preset say)."""
    fusion_block_idx: list[int] | None = None
    """Blocks in which render and reference see each other (default: all)."""
    render_alpha: bool | None = None
    """The bridge reads the renders' alpha too; True gives weights without it a place for it, which
    stage 2 fills (default: as the weights or the preset say)."""
    fine_width: int | None = None
    """Channels of the bridge's last level at full resolution; given to weights without one, stage 2
    fills it (default: as the weights or the preset say)."""
    saln: bool | None = None
    """One AdaLN for all blocks; only with --preset."""
    anorm: bool | None = None
    """Queries and keys of unit length; only with --preset."""
    ini: float = -1.0
    """Deviation of a new transformer's weights (-1: by its width)."""
    hd: float = 0.02
    """Factor on a new head's."""
    aln: float = 0.5
    """Factor on new AdaLN weights."""
    alng: float = 1e-5
    """Factor on new AdaLN gates."""
    use_lora: bool = False
    """Train low-rank factors of the attention only."""
    lora_r: int = 16
    """Their rank."""
    lora_alpha: int = 32
    """Their scale, over the rank."""
    lora_dropout: float = 0.0
    """Not supported but for 0."""
    lora_target_modules: str = "qv"
    """Which of q, k, v and o they change."""


@dataclass(frozen=True)
class Optimization(generic.Optimization):
    """How long, how fast, in which precision."""

    checkpointing: bool | None = None
    """Recompute activations in the backward pass (default: from depth 16 on)."""
    vfast: Literal[0, 1, 2, 3] = 0
    """torch.compile the VQ-VAE: 1 reduce-overhead, 2 max-autotune, 3 default."""
    tfast: Literal[0, 1, 2, 3] = 0
    """torch.compile the transformer, likewise."""


@dataclass(frozen=True)
class Latent:
    """Stage 1, in latent space."""

    ls: float = 0.0
    """Label smoothing of the cross-entropy."""
    use_ref_view_loss: bool = False
    """Learn to predict the reference views' tokens too."""
    diffusion_weight: float = 2.0
    """Weight of the refiner's loss."""
    diffusion_repeats: int = 4
    """Noise levels drawn for each token."""
    corrupt: float = 0.0
    """Share of the given tokens replaced by similar ones, later scales being asked to make up for
    it: against exposure bias."""


@dataclass(frozen=True)
class Bridging:
    """Stage 2, in image space."""

    use_ref_view_loss: bool = False
    """Decode reference views too."""
    train_decoder: bool = False
    """Train the VQ-VAE's decoder with the bridge."""
    own_tokens: bool = False
    """Decode the render's own tokens instead of stage 1's: what the bridge does by itself, and a
    start that costs little."""
    bridge_start: Literal["identity", "random"] = "identity"
    """A new bridge returns the render; or random, as the original's."""
    harm: float = 0.0
    """Weight of harm: how much farther from the truth than the render a pixel is, mean over all
    pixels of those that are. The original: 0."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    """Where VGG16's weights are not at hand: L1 + (1 - SSIM), or 4 L2 + (1 - SSIM), which gains
    more PSNR and leaves good pixels alone less."""
    use_gram_loss: bool = False
    """Add 0.5 times the Gram loss (VGG16) after --pgwp epochs."""
    pgwp: float = 0.0
    """Epochs before the Gram loss."""


@dataclass(frozen=True)
class Tokenizing:
    """Stage 0, the tokenizer."""

    images: Path | None = None
    """A folder of pictures to learn from, instead of --json_path's ground truths."""
    commitment: float = 0.25
    """Weight of the encoder's commitment to its codes."""
    perceptual: bool = True
    """Learn by L2 + LPIPS (VGG16), where its weights are available; False: by L1 + SSIM."""
    continuous: float = 0.25
    """Share of pictures decoded from the latent before quantisation, as the refiner restores it."""
    revive_every: int | None = None
    """Steps between replacements of codes that nobody uses, 0 for never (default: 100 for a new
    tokenizer, 0 for one of --vae_model_path)."""
    gan: float = 0.0
    """Weight of the adversarial loss (0: none)."""
    gan_start: float = 0.5
    """Share of the steps before it sets in."""


@dataclass(frozen=True)
class Ignored:
    """Flags of the original without effect here: computed from others, or unused there too."""

    bs: int = 4
    patch_size: int = 16
    fuse: bool = True
    data_load_reso: int | None = None
    mid_reso: float = 1.125
    pg: float = 0.0
    pg0: int = 4
    same_seed_for_all_ranks: int = 0
    local_debug: bool = False
    dbg_nan: bool = False


@dataclass(frozen=True)
class TrainFlags:
    """The flags that every training script has."""

    triplets: Triplets = field(default_factory=Triplets)
    model: Model = field(default_factory=Model)
    optimization: Optimization = field(default_factory=Optimization)
    run: Run = field(default_factory=Run)


@dataclass(frozen=True)
class LatentFlags(TrainFlags):
    """VAR_train.py's."""

    latent: Latent = field(default_factory=Latent)


@dataclass(frozen=True)
class BridgeFlags(TrainFlags):
    """VAE_train.py's."""

    bridging: Bridging = field(default_factory=Bridging)


@dataclass(frozen=True)
class TokenizerFlags(TrainFlags):
    """VQVAE_train.py's."""

    tokenizing: Tokenizing = field(default_factory=Tokenizing)


TRAINING = (Triplets, Model, Optimization, Run, Latent, Bridging, Tokenizing, Ignored)


def parse_train(kind: type[Flags], arguments: list[str], program: str, about: str) -> Flags:
    """A training script's flags (LatentFlags, BridgeFlags or TokenizerFlags); those of the other
    scripts are checked and ignored.

    Raises ValueError for an unknown flag; tyro exits with code 2 for a wrong value.
    """
    ignored = (*TRAINING, *TESTING)
    return parse_flags(kind, arguments, program, about, ignored=ignored, aliases=ALIASES)
