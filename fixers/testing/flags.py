# The flags of test_tile.py and test_varsr.py, as the original spells them, and ours.
from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fixers.fixer import FixerOptions
from fixers.flags import FixerName, OptionFlags, describe_fixers, list_options
from runtime.flags import parse_flags

FLAGS = OptionFlags(
    names={
        "checkpoint": "var_test_path",
        "vqvae": "vae_model_path",
        "bridge": "use_bridge",
        "mixing_blocks": "fusion_block_idx",
    },
    shown={"mode": "the script's own"},
)
OF_WEIGHTS = {"checkpoint", "vqvae", "depth", "bridge", "mixing_blocks"}


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
    holes: Literal["none", "auto"] = "none"
    """Of pictures without alpha: none, they are opaque; or auto, large regions that are black
    throughout are taken for holes, which unlit parts of a scene may be, too."""


@dataclass(frozen=True)
class LoRAWeights:
    """Weights that go on top of others."""

    var_pretrain_path: Path = Path("checkpoints/VARSR.pth")
    """What training starts from; in a test, the base model of LoRA weights (--use_lora=True)."""
    use_lora: bool = False
    """The weights are LoRA factors on var_pretrain_path."""


@dataclass(frozen=True)
class FixerChoice:
    """Which fixer, and where it runs."""

    fixer: Annotated[FixerName, tyro.conf.arg(help=describe_fixers())] = "gsvar"
    device: str | None = None
    """cuda, cuda:1 or cpu (default: a GPU if there is one)."""


Weights = FLAGS.make_group(
    "Weights",
    "Which model; its sizes are read from the file. Without --var_test_path gsvar's weights are "
    "checkpoints/VARSR.pth if that is there, else those that come with this project; its VQ-VAE is "
    "checkpoints/VQVAE.pth where the weights have none.",
    OF_WEIGHTS,
    (LoRAWeights,),
)
Fixing = FLAGS.make_group(
    "Fixing",
    "How renders are fixed.",
    list_options().keys() - OF_WEIGHTS - {"base"},  # base is --var_pretrain_path
    (FixerChoice,),
)


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
    lpips_net: Literal["alex", "vgg", "both"] = "alex"
    """Network of LPIPS; the original's is alex. both: lpips with AlexNet and lpips_vgg with
    VGG16."""
    backbones: Path | None = None
    """Folder with alexnet_features.safetensors and vgg16_features.safetensors for LPIPS, where
    torchvision's weights are neither there nor to be downloaded (or set LPIPS_BACKBONES; `python -m
    evaluation.backbones fetch` gets them)."""


@dataclass(frozen=True)
class TestFlags:
    """The flags of the test scripts."""

    data: Data = field(default_factory=Data)
    weights: Weights = field(default_factory=Weights)
    fixing: Fixing = field(default_factory=Fixing)
    results: Results = field(default_factory=Results)

    def choose_options(self) -> FixerOptions:
        """The options of the chosen fixer. Raises ValueError for those of others."""
        options = FLAGS.choose_options(self.fixing.fixer, self.weights, self.fixing)
        if not self.weights.use_lora:
            return options
        if not hasattr(options, "base"):
            raise ValueError(f"--use_lora: --fixer {self.fixing.fixer} has no LoRA weights")
        return replace(options, base=self.weights.var_pretrain_path)


TESTING = (Data, Weights, Fixing, Results)
ALIASES = {"limit": "eval_img_num"}
FLAGS.check_names("test_tile.py", Data, LoRAWeights, FixerChoice, Results, *ALIASES)


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
