# The flags of test_tile.py and test_varsr.py, as the original spells them, and ours.
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runtime.flags import parse_flags


def default_weights() -> Path:
    """The original's where they are, else those that come with this project."""
    original = Path("checkpoints/VARSR.pth")
    if original.is_file():
        return original
    from fixers.gsvar import SHIPPED

    return SHIPPED


@dataclass(frozen=True)
class Data:
    """Which triplets."""

    json_path: str = "data/data.json"
    """Triplets (data/README.md), or several lists of them, comma-separated."""
    use_ref: bool = True
    """Give the reference view to the model."""
    num_refs: int = 1
    """References of an entry, nearest first; fewer where it has fewer."""
    use_warped: bool | None = None
    """Take the references that were warped into the render's view (gen_data_json.py --warp);
    default: where the model was made for those (mini)."""


@dataclass(frozen=True)
class Weights:
    """Which model. Its sizes are read from the file."""

    var_test_path: Path = field(default_factory=default_weights)
    """Weights: ar-ckpt-*.pth, vae-ckpt-*.pth or VARSR.pth of the original, or our .safetensors
    (default: checkpoints/VARSR.pth if it is there, else those that come with this project)."""
    vae_model_path: Path | None = None
    """VQ-VAE and bridge (default: those of var_test_path, else checkpoints/VQVAE.pth)."""
    var_pretrain_path: Path = Path("checkpoints/VARSR.pth")
    """What training starts from; in a test, the base model of LoRA weights (--use_lora=True)."""
    depth: int | None = None
    """Transformer blocks that the weights must have (default: whatever they have)."""
    use_bridge: bool | None = None
    """Decode with the VAE-bridge (default: where the weights have one, which stage-2 weights
    do)."""
    use_lora: bool = False
    """The weights are LoRA factors on var_pretrain_path."""
    fusion_block_idx: list[int] | None = None
    """Blocks in which render and reference see each other (default: as in training)."""


@dataclass(frozen=True)
class Fixing:
    """How renders are fixed."""

    fixer: Literal["gsvar", "identity", "classical"] = "gsvar"
    """identity returns the render, classical is a denoiser: what a fixer must beat."""
    mode: Literal["tile", "resize", "native"] | None = None
    """Tiles of the trained size, squashed to it, or in one piece where the shape allows it
    (default: the script's own)."""
    colour: Literal["none", "render-adain", "render-wavelet", "reference"] = "none"
    """Move colours towards the render's, or the reference's as the original did."""
    refiner: Literal["ancestral", "ddim", "mean", "none"] | None = None
    """How the last details are drawn (default: as the weights learnt; the original's is
    ancestral)."""
    refiner_steps: int = 10
    """Steps of the refiner."""
    seed: int = 42
    """Of the refiner's noise."""
    batch_size: int = 4
    """Tiles, or pictures where they are squashed, at a time; lower it if the memory is not
    enough."""
    dtype: Literal["float32", "bf16", "fp16"] = "float32"
    """Precision of the networks."""
    device: str | None = None
    """cuda, cuda:1 or cpu (default: the best there is)."""


@dataclass(frozen=True)
class Results:
    """What is tested and written."""

    testset_path: Path = Path("testset")
    """Where copies of the pictures and the results go."""
    eval_img_num: int | None = None
    """Only the first so many entries (default: all); --limit is the same."""
    gen_img: bool = True
    """False: only compute metrics, from predictions that are there already."""
    resume: bool = False
    """Keep predictions that are there already and make the others."""
    shard: str | None = None
    """i/n: of the list only every n-th entry, from the i-th on, for job arrays that share a folder;
    what is there is kept, and the last one to end measures all."""
    epoch: int | None = None
    """Of the predictions' folder <epoch>_<iter> (default: as the weights tell)."""
    iter: int | None = None
    """The same for the iteration."""
    metric_space: Literal["rgb", "y"] = "rgb"
    """y: PSNR and SSIM on luma (BT.601, studio swing), as the original reports them."""
    lpips_net: Literal["alex", "vgg"] = "alex"
    """Network of LPIPS; the original's is alex."""


@dataclass(frozen=True)
class TestFlags:
    """The flags of the test scripts."""

    data: Data = field(default_factory=Data)
    weights: Weights = field(default_factory=Weights)
    fixing: Fixing = field(default_factory=Fixing)
    results: Results = field(default_factory=Results)


TESTING = (Data, Weights, Fixing, Results)
ALIASES = {"limit": "eval_img_num"}


def parse_test(
    arguments: list[str], program: str, about: str, *, ignored: tuple[type, ...] = ()
) -> TestFlags:
    """The test scripts' flags; those of the groups `ignored`, which only training uses, are checked
    and have no effect.

    Raises ValueError for an unknown flag, with what was probably meant; tyro exits with code 2 for
    a wrong value.
    """
    options = {"ignored": ignored, "aliases": ALIASES, "where": "in a test"}
    return parse_flags(TestFlags, arguments, program, about, **options)
