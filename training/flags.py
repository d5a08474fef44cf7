# The flags of VAR_train.py, VAE_train.py, test_tile.py and test_varsr.py, as the original spells
# them.
from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import tyro

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestFlags:
    """What the test scripts use."""

    json_path: str = "data/data.json"
    """Triplets to test on (data/README.md); the split `val` or `test`."""
    var_test_path: Path = Path("checkpoints/VARSR.pth")
    """Weights: ar-ckpt-*.pth, vae-ckpt-*.pth or VARSR.pth of the original, or our .safetensors."""
    vae_model_path: Path | None = None
    """VQ-VAE and bridge (default: those of var_test_path, else checkpoints/VQVAE.pth)."""
    var_pretrain_path: Path = Path("checkpoints/VARSR.pth")
    """The base model of LoRA weights (--use_lora=True)."""
    testset_path: Path = Path("testset")
    """Where copies of the pictures and the results go."""
    depth: int | None = None
    """Transformer blocks that the weights must have (default: whatever they have)."""
    use_ref: bool = True
    """Give the reference view to the fixer."""
    use_bridge: bool = False
    """Decode with the VAE-bridge (stage-2 weights)."""
    use_lora: bool = False
    """The weights are LoRA factors on var_pretrain_path."""
    eval_img_num: int | None = None
    """Test on the first so many entries only."""
    gen_img: bool = True
    """False: compute metrics from predictions that are there already."""
    epoch: int | None = None
    """Of the predictions' folder <epoch>_<iter> (default: as the weights tell)."""
    iter: int | None = None
    batch_size: int = 4
    """Tiles (test_tile) or pictures (test_varsr) at a time; lower it if the memory is not
    enough."""
    seed: int = 42
    """Of the refiner's noise."""
    fixer: Literal["gsvar", "identity", "classical"] = "gsvar"
    """identity returns the render, classical is a denoiser: what a fixer must beat."""
    metric_space: Literal["rgb", "y"] = "rgb"
    """y: PSNR and SSIM on luma (BT.601), as the original reports them."""
    lpips_net: Literal["alex", "vgg"] = "alex"
    colour: Literal["none", "render-adain", "render-wavelet", "reference"] = "none"
    """Colour correction; reference is the original's."""
    refiner: Literal["ancestral", "ddim", "mean", "none"] = "ancestral"
    refiner_steps: int = 10
    resume: bool = False
    """Keep predictions that are there already."""
    device: str | None = None
    """cuda or cpu (default: the best there is)."""
    dtype: Literal["float32", "bf16", "fp16"] = "float32"


# flags of the original that training uses; the test scripts take them, so that its commands run
TRAINING_FLAGS = {
    *("wandb_flag", "wandb_id", "exp_name", "num_samples_eval", "eval_freq", "use_ref_drop"),
    *("use_ref_view_loss", "fusion_block_idx", "lora_r", "lora_alpha", "lora_dropout"),
    *("lora_target_modules", "vfast", "tfast", "use_gram_loss", "ini", "hd", "aln", "alng"),
    *("fp16", "tblr", "tlr", "twd", "twde", "tclip", "ls", "bs", "glb_batch_size", "ac", "ep"),
    *("wp", "wp0", "wpe", "sche", "opt", "afuse", "saln", "anorm", "fuse", "pn", "patch_size"),
    *("data_load_reso", "mid_reso", "hflip", "workers", "pg", "pg0", "pgwp", "tf32"),
    *("same_seed_for_all_ranks", "local_debug", "dbg_nan"),
}


def parse(arguments: list[str], program: str, about: str) -> TestFlags:
    """The test scripts' flags; exit code 2 for unknown ones.

    Booleans take a value (True, False, 1, 0) or stand alone. Flags that only training uses are said
    to have no effect.
    """
    booleans = {field.name for field in fields(TestFlags) if field.type == "bool"}
    kept: list[str] = []
    unused: list[str] = []
    i = 0
    while i < len(arguments):
        name, equals, value = arguments[i].partition("=")
        key = name.removeprefix("--").replace("-", "_") if name.startswith("--") else ""
        i += 1
        values = [value] if equals else []
        if key and not equals:
            while i < len(arguments) and not arguments[i].startswith("--"):
                values.append(arguments[i])
                i += 1
        if key in TRAINING_FLAGS:
            unused.append(f"--{key}")
        elif key in booleans:
            kept += [f"--{key}", truth(values[0]) if values else "True", *values[1:]]
        else:
            kept += [name, *values]
    if unused:
        log.info("without effect in a test: %s", ", ".join(unused))
    return tyro.cli(
        TestFlags,
        args=kept,
        prog=program,
        description=inspect.cleandoc(about),
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
    )


def truth(text: str) -> str:
    """True and False as people write them."""
    lowered = text.lower()
    if lowered in ("1", "true", "yes", "on"):
        return "True"
    return "False" if lowered in ("0", "false", "no", "off") else text
