# The command python -m models.checkpoints: what a file is, and the same in another layout.
from __future__ import annotations

from pathlib import Path

import tyro

from runtime.arguments import naming_flags


def run() -> None:
    """Inspect or convert, as the command line says."""
    commands = {"inspect": show, "convert": convert}
    tyro.extras.subcommand_cli_from_dict(
        commands, prog="python -m models.checkpoints", use_underscores=True
    )


def show(file: tyro.conf.Positional[Path]) -> None:
    """Print what a checkpoint is: parts, sizes, config.

    Args:
        file: a .safetensors of ours, or a .pth of the original.
    """
    from models.checkpoints import registry

    for key, value in registry.inspect(file).items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                text = (
                    f"{item['tensors']} tensors, {item['parameters']:,} parameters"
                    if isinstance(item, dict)
                    else item
                )
                print(f"  {name}: {text}")
        elif value is not None:
            print(f"{key}: {value}")


def convert(
    source: tyro.conf.Positional[Path],
    target: tyro.conf.Positional[Path],
    vqvae: Path | None = None,
    base: Path | None = None,
    bf16: bool = False,
) -> None:
    """Write a checkpoint in the other layout.

    Args:
        source: any checkpoint that can be loaded.
        target: .safetensors (ours) or .pth (the original's layout).
        vqvae: take the VQ-VAE and bridge from this file (VARSR.pth has none).
        base: the model under a file that holds LoRA factors only.
        bf16: half the size, to pass on (.safetensors only).
    """
    import torch

    from models.checkpoints import registry
    from models.checkpoints.system import check_ending, export
    from models.gsvar.loading import load as load_gsvar

    if bf16 and target.suffix != ".safetensors":
        raise ValueError(f"{target}: --bf16 is for .safetensors")
    check_ending(target)
    with naming_flags(vqvae="--vqvae", base="--base"):
        if vqvae is None and base is None:
            _, model = registry.load(source)
        else:
            model = load_gsvar(source, vqvae=vqvae, base=base)
    system = registry.system_of(model)
    export(system, model, target, torch.bfloat16 if bf16 else None)
    print(f"wrote {target}")
