# The flags of the training and test scripts, as the original spells them, and ours.
from __future__ import annotations

import difflib
import inspect
import logging
from collections.abc import Collection
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Literal, TypeVar

import tyro

from fixers.gsvar import SHIPPED

log = logging.getLogger(__name__)

Flags = TypeVar("Flags")


def default_weights() -> Path:
    """The original's where they are, else those that come with this project."""
    original = Path("checkpoints/VARSR.pth")
    return original if original.is_file() else SHIPPED


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


# training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Triplets:
    """What is learnt from."""

    json_path: str = "data/data.json"
    """Triplets (data/README.md), or several lists of them, comma-separated; train and val. The
    entries of LIST.json*3 are learnt from three times as often."""
    use_ref: bool = True
    """Give reference views to the model."""
    num_refs: int = 1
    """References of an entry, nearest first; entries must have as many."""
    use_warped: bool | None = None
    """Take the references that were warped into the render's view (gen_data_json.py --warp);
    default: where the model was made for those (mini)."""
    use_ref_drop: bool = False
    """Some of the steps are without references, as an inference without them is."""
    ref_drop: float = 0.5
    """The share of those steps."""
    fit: Literal["crop", "squash"] = "crop"
    """Random windows of the trained size, the reference's around the same content where cameras
    are known; or the whole picture squashed to that size, as the original did."""
    hflip: bool = False
    """Mirror half of the triplets, all their pictures together."""
    photometric: float = 0.0
    """Share of the triplets whose pictures are all made darker or brighter alike: what is black is
    not always a hole."""
    crops: int = 0
    """Take only so many different windows of each picture (0: a new one each time)."""
    cache_dir: Path | None = None
    """Keep what the frozen networks make of the windows here; wants --crops, or --fit=squash."""
    skip_bad: bool = False
    """Leave out entries with missing or unreadable pictures, and say how many."""
    workers: int = 8
    """Processes that read pictures, at most one a core."""
    num_samples_eval: int = 100
    """Pictures of a validation."""


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
class Optimisation:
    """How long, how fast, in which precision."""

    batch_size: int = 4
    """Samples a process, at a time."""
    glb_batch_size: int = 0
    """Samples of a step over all processes and accumulations, instead of --batch_size."""
    ac: int = 1
    """Batches whose gradients make one step."""
    ep: int = 250
    """Epochs."""
    steps: int | None = None
    """Steps in all, instead of --ep."""
    tblr: float = 5e-5
    """Learning rate; times --ac, as in the original."""
    tlr: float | None = None
    """Learning rate as it is."""
    twd: float = 0.05
    """Weight decay at the start."""
    twde: float = 0.05
    """Weight decay at the end (cosine in between)."""
    tclip: float = 2.0
    """Norm that gradients are clipped to (0: not)."""
    sche: str = "lin0"
    """Learning rate after warm-up: lin0 (30 % constant, then linear), lin (15 %), lin00, cos, exp,
    lin0.4 and the like."""
    wp: float = 0.1
    """Warm-up in epochs."""
    wp0: float = 0.005
    """Learning rate at the start of the warm-up, as a factor."""
    wpe: float = 0.01
    """Learning rate at the end, as a factor."""
    opt: Literal["adamw", "adam"] = "adamw"
    """Optimiser, betas 0.9 and 0.95."""
    afuse: bool = True
    """Its fused kernel."""
    fp16: Literal[0, 1, 2] = 1
    """0 float32, 1 float16 with loss scaling (float32 on a CPU), 2 bfloat16."""
    tf32: bool = True
    """TF32 for what stays in float32 on CUDA."""
    ema: float = 0.0
    """Decay of an average of the weights, 0.999 say, which is then what is saved and validated."""
    checkpointing: bool | None = None
    """Recompute activations in the backward pass (default: from depth 16 on)."""
    fsdp: bool = False
    """Shard parameters and optimiser over the processes (FSDP2), for models that do not fit."""
    vfast: Literal[0, 1, 2, 3] = 0
    """torch.compile the VQ-VAE: 1 reduce-overhead, 2 max-autotune, 3 default."""
    tfast: Literal[0, 1, 2, 3] = 0
    """torch.compile the transformer, likewise."""
    seed: int | None = None
    """Of everything random (default 0)."""
    device: str | None = None
    """cuda or cpu (default: the best there is)."""


@dataclass(frozen=True)
class Run:
    """What is written, and when."""

    exp_name: str = "VARSR"
    """Name of the run."""
    results: Path = Path("results")
    """Everything goes to <results>/<exp_name>."""
    resume: bool = True
    """Go on with the run that is there; --resume=False removes its checkpoints and logs."""
    eval_freq: int = 10000
    """Validate every so many samples."""
    save_minutes: float = 10.0
    """Save at least this often; a killed run goes on from there."""
    keep: int = 2
    """Checkpoints of earlier validations to keep, besides the last and the best."""
    minutes: float | None = None
    """Stop after this time, saved; the same command goes on."""
    log_every: int = 10
    """Steps between lines of the logs."""
    wandb_flag: bool = False
    """Log to Weights & Biases too (pip install wandb)."""
    wandb_id: str | None = None
    """Its run to go on with (default: this run's own)."""
    wandb_mode: Literal["online", "offline"] = "online"
    """offline writes to <results>/<exp_name>/wandb; also where there is no network."""


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
    """Learn by L2 + LPIPS (VGG16), where its weights can be had; False: by L1 + SSIM."""
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
    optimisation: Optimisation = field(default_factory=Optimisation)
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


# tests ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TestFlags:
    """The flags of the test scripts."""

    data: Data = field(default_factory=Data)
    weights: Weights = field(default_factory=Weights)
    fixing: Fixing = field(default_factory=Fixing)
    results: Results = field(default_factory=Results)


TESTING = (Data, Weights, Fixing, Results)
TRAINING = (Triplets, Model, Optimisation, Run, Latent, Bridging, Tokenizing, Ignored)
ALIASES = {"limit": "eval_img_num"}


def parse_test(arguments: list[str], program: str, about: str) -> TestFlags:
    """The test scripts' flags; those that only training uses are checked and said to have no
    effect.

    Raises ValueError for an unknown flag, with what was probably meant; tyro exits with code 2 for
    a value that is none.
    """
    return parse(TestFlags, TRAINING, arguments, program, about, "in a test")


def parse_train(kind: type[Flags], arguments: list[str], program: str, about: str) -> Flags:
    """A training script's flags (LatentFlags, BridgeFlags, TokenizerFlags); as `parse_test`."""
    return parse(kind, (*TRAINING, *TESTING), arguments, program, about, "here")


def parse(
    kind: type[Flags],
    others: tuple[type, ...],
    arguments: list[str],
    program: str,
    about: str,
    where: str,
) -> Flags:
    """The flags of `kind`'s groups; those of the groups `others` are checked only."""
    own = {f.name for group in fields(kind) for f in fields(group.default_factory)}
    own |= {alias for alias, name in ALIASES.items() if name in own}
    foreign = {f.name: group for group in reversed(others) for f in fields(group)}
    given = split(arguments, {**foreign, **dict.fromkeys((*own, *ALIASES))})
    idle = [(name, values) for name, values in given if name not in own and name != "help"]
    for name, values in idle:
        command_line(foreign[ALIASES.get(name, name)], [(name, values)], program, about)
    if idle:
        log.info("without effect %s: %s", where, ", ".join(f"--{name}" for name, _ in idle))
    chosen = [(name, values) for name, values in given if (name, values) not in idle]
    return command_line(kind, chosen, program, about)


def split(arguments: list[str], names: Collection[str]) -> list[tuple[str, list[str]]]:
    """Flags and their values, in order: --name=value, --name value value, and --name alone for a
    boolean."""
    given: list[tuple[str, list[str]]] = []
    for argument in arguments:
        text, equals, value = argument.partition("=")
        if text in ("-h", "--help"):
            given.append(("help", []))
        elif text.startswith("--"):
            name = text[2:].replace("-", "_")
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
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
    leaves = [f for g in fields(kind) for f in fields(g.default_factory)] if nested(kind) else []
    booleans = {f.name for f in leaves or fields(kind) if f.type.startswith("bool")}
    words: list[str] = []
    for name, values in given:
        if name in booleans:
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


def nested(kind: type) -> bool:
    """Whether a dataclass is made of groups of flags."""
    return all(is_dataclass(f.default_factory) for f in fields(kind))


def truth(text: str) -> str:
    """True and False as people write them."""
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return "True"
    return "False" if lowered in ("0", "false", "no", "off") else text
