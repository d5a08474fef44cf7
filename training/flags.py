# The flags of VAR_train.py, VAE_train.py, test_tile.py and test_varsr.py, as the original spells
# them.
from __future__ import annotations

import difflib
import inspect
import logging
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar

import tyro

log = logging.getLogger(__name__)

Flags = TypeVar("Flags")


@dataclass(frozen=True)
class Data:
    """Which triplets."""

    json_path: str = "data/data.json"
    """Triplets (data/README.md), or several lists of them, comma-separated."""
    use_ref: bool = True
    """Give the reference view to the model."""


@dataclass(frozen=True)
class Weights:
    """Which model. Its sizes are read from the file."""

    var_test_path: Path = Path("checkpoints/VARSR.pth")
    """Weights: ar-ckpt-*.pth, vae-ckpt-*.pth or VARSR.pth of the original, or our .safetensors."""
    vae_model_path: Path | None = None
    """VQ-VAE and bridge (default: those of var_test_path, else checkpoints/VQVAE.pth)."""
    var_pretrain_path: Path = Path("checkpoints/VARSR.pth")
    """What training starts from; in a test, the base model of LoRA weights (--use_lora=True)."""
    depth: int | None = None
    """Transformer blocks that the weights must have (default: whatever they have)."""
    use_bridge: bool = False
    """Decode with the VAE-bridge (stage-2 weights)."""
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
    refiner: Literal["ancestral", "ddim", "mean", "none"] = "ancestral"
    """How the last details are drawn; the original's is ancestral."""
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
    epoch: int | None = None
    """Of the predictions' folder <epoch>_<iter> (default: as the weights tell)."""
    iter: int | None = None
    """The same for the iteration."""
    metric_space: Literal["rgb", "y"] = "rgb"
    """y: PSNR and SSIM on luma (BT.601, studio swing), as the original reports them."""
    lpips_net: Literal["alex", "vgg"] = "alex"
    """Network of LPIPS; the original's is alex."""


@dataclass(frozen=True)
class Training:
    """What only training uses, with the original's defaults."""

    exp_name: str = "VARSR"
    wandb_flag: bool = False
    wandb_id: str | None = None
    num_samples_eval: int = 100
    eval_freq: int = 10000
    use_ref_drop: bool = False
    use_ref_view_loss: bool = False
    use_gram_loss: bool = False
    lora_r: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.0
    lora_target_modules: str = "qv"
    vfast: int = 0
    tfast: int = 0
    ini: float = -1.0
    hd: float = 0.02
    aln: float = 0.5
    alng: float = 1e-5
    fp16: int = 1
    tblr: float = 5e-5
    tlr: float | None = None
    twd: float = 0.05
    twde: float = 0.05
    tclip: float = 2.0
    ls: float = 0.0
    bs: int = 4
    glb_batch_size: int = 0
    ac: int = 1
    ep: int = 250
    wp: float = 0.1
    wp0: float = 0.005
    wpe: float = 0.01
    sche: str = "lin0"
    opt: str = "adamw"
    afuse: bool = True
    saln: bool = False
    anorm: bool = True
    fuse: bool = True
    pn: str = "1_2_3_4_6_9_13_18_24_32"
    patch_size: int = 16
    data_load_reso: int | None = None
    mid_reso: float = 1.125
    hflip: bool = False
    workers: int = 8
    pg: float = 0.0
    pg0: int = 4
    pgwp: float = 0.0
    tf32: bool = True
    same_seed_for_all_ranks: int = 0
    local_debug: bool = False
    dbg_nan: bool = False


@dataclass(frozen=True)
class TestFlags:
    """The flags of the test scripts."""

    data: Data = field(default_factory=Data)
    weights: Weights = field(default_factory=Weights)
    fixing: Fixing = field(default_factory=Fixing)
    results: Results = field(default_factory=Results)


GROUPS = (Data, Weights, Fixing, Results, Training)
ALIASES = {"limit": "eval_img_num"}
NAMES = {f.name: group for group in GROUPS for f in fields(group)} | {"limit": Results}
BOOLEANS = {f.name for group in GROUPS for f in fields(group) if f.type == "bool"}


def parse_test(arguments: list[str], program: str, about: str) -> TestFlags:
    """The test scripts' flags; those that only training uses are checked and said to have no
    effect.

    Raises ValueError for an unknown flag, with what was probably meant; tyro exits with code 2 for
    a value that is none.
    """
    given = split(arguments)
    training = {name: values for name, values in given if NAMES.get(name) is Training}
    tested = [(name, values) for name, values in given if name not in training]
    command_line(Training, list(training.items()), program, about)
    if training:
        log.info("without effect in a test: %s", ", ".join(f"--{name}" for name in training))
    return command_line(TestFlags, tested, program, about)


def split(arguments: list[str]) -> list[tuple[str, list[str]]]:
    """Flags and their values, in order: --name=value, --name value value, and --name alone for a
    boolean."""
    given: list[tuple[str, list[str]]] = []
    for argument in arguments:
        text, equals, value = argument.partition("=")
        if text in ("-h", "--help"):
            given.append(("help", []))
        elif text.startswith("--"):
            name = text[2:].replace("-", "_")
            if name not in NAMES:
                near = difflib.get_close_matches(name, NAMES, 1)
                hint = f"; did you mean --{near[0]}?" if near else "; see --help"
                raise ValueError(f"there is no flag {text}{hint}")
            given.append((name, [value] if equals else []))
        elif not given:
            raise ValueError(f"{argument!r} belongs to no flag; see --help")
        else:
            given[-1][1].append(argument)
    return given


def command_line(
    kind: type[Flags], given: list[tuple[str, list[str]]], program: str, about: str
) -> Flags:
    """The dataclass from flags and values, by tyro; booleans as people write them."""
    words: list[str] = []
    for name, values in given:
        if name in BOOLEANS:
            values = [truth(value) for value in values] or ["True"]
        words += [f"--{ALIASES.get(name, name)}", *values]
    return tyro.cli(
        kind,
        args=words,
        prog=program,
        description=inspect.cleandoc(about),
        config=(tyro.conf.FlagConversionOff, tyro.conf.OmitArgPrefixes),
        use_underscores=True,
    )


def truth(text: str) -> str:
    """True and False as people write them."""
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return "True"
    return "False" if lowered in ("0", "false", "no", "off") else text
