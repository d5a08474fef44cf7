# GS-VAR's weights on disk: our own files, the original's, and models put together from several.
from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models.checkpoints import system as layout
from models.checkpoints.io import count_sizes, read, write_pickle
from models.checkpoints.system import System, fill, find_misfits
from models.gsvar import adapter
from models.gsvar.config import GSVARConfig
from models.gsvar.model import GSVAR
from runtime.arguments import ArgumentError

log = logging.getLogger(__name__)


def load(
    path: str | Path,
    *,
    vqvae: str | Path | None = None,
    base: str | Path | None = None,
    depth: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> GSVAR:
    """A model in eval mode from a file of ours or of the original.

    `vqvae` takes the tokenizer (and bridge) from another file; `base` is the model under a file
    that holds LoRA factors only; `depth` is what the caller expects. Raises FileNotFoundError and
    ValueError, in one sentence that names the file, for anything but a whole, finite, matching set
    of tensors; an ArgumentError where another `vqvae`, `base` or `depth` would help.
    """
    path = Path(path)
    content, metadata = read(path)
    if metadata.get("format") == SYSTEM.format:
        config = layout.read_config(SYSTEM, path, metadata)
        check_depth(path, config, depth)
        model = layout.load(SYSTEM, path, content, metadata)
        if vqvae is not None:
            return with_vqvae(model, vqvae, device, dtype)
        return finish(model, device, dtype)
    return finish(load_original(path, content, vqvae, base, depth), device, dtype)


def load_original(
    path: Path,
    content: object,
    vqvae: str | Path | None = None,
    base: str | Path | None = None,
    depth: int | None = None,
) -> GSVAR:
    """The model in a file of the original's layout, read already; else as `load`."""
    original = recognize(path, content)
    if adapter.is_lora(original.transformer):
        if base is None:
            raise ArgumentError(
                f"{path} holds LoRA factors only: name the base model they go on as well "
                "({argument})",
                "base",
            )
        model = load(base, vqvae=vqvae, depth=depth)
        try:
            adapter.put_lora(model, original.transformer, original.args)
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from None
        return model
    if not original.transformer:
        raise ArgumentError(
            f"{path} holds a VQ-VAE and no transformer: give it as {{argument}}, "
            "beside an ar-ckpt or VARSR.pth",
            "vqvae",
        )
    home, source = path, original
    if vqvae is not None and Path(vqvae) != path:
        home = Path(vqvae)
        source = recognize(home, read(home)[0])
    if not source.vqvae:
        raise ArgumentError(
            f"{home} holds no VQ-VAE: name the file that does ({{argument}})", "vqvae"
        )
    bridged = adapter.has_bridge(source)
    tensors = vqvae_tensors(source)
    if len(tensors) < len(source.vqvae):
        log.info("%s is a stage-1 file: its VAE-bridge is untrained and is left out", home)
    try:
        config = adapter.config_of(original, tensors)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{path}: {e}") from None
    check_depth(path, config, depth)
    model = empty(config, bridged)
    state, misfits = adapter.own_state(model, original.transformer, tensors)
    fill(model, state, misfits, path, SYSTEM.foreign_name)
    return model


def with_vqvae(
    model: GSVAR,
    path: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> GSVAR:
    """A model with the same transformer and the tokenizer (and bridge) of another file. Raises as
    `load`."""
    path = Path(path)
    content, metadata = read(path)
    if metadata.get("format") == SYSTEM.format:
        tensors = {k: v for k, v in content.items() if k.startswith("vqvae.")}
        other = build(model.config, tensors)
        own = {k: v for k, v in model.state_dict().items() if not k.startswith("vqvae.")}
        state = own | tensors
        misfits = find_misfits(other, state)
    else:
        source = recognize(path, content)
        other = empty(model.config, adapter.has_bridge(source))
        transformer = adapter.to_original(model)["trainer"]["var_wo_ddp"]
        state, misfits = adapter.own_state(other, transformer, vqvae_tensors(source))
    fill(other, state, misfits, path, SYSTEM.foreign_name)
    return finish(other, device, dtype)


def save(
    model: GSVAR,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model as safetensors with its config; an older file stays until all is written.

    `dtype`: rounded to it, but for the quantizer, whose sums must not drift.
    """
    layout.save(SYSTEM, model, path, metadata, dtype)


def save_original(
    model: GSVAR, path: str | Path, *, epoch: int = 0, iteration: int = 0, args: dict | None = None
) -> None:
    """Write a model in the original's layout (`trainer` with `var_wo_ddp` and `vae_local`)."""
    write_pickle(path, adapter.to_original(model, epoch=epoch, iteration=iteration, args=args))


def inspect(path: str | Path) -> dict:
    """What a file is: format, parts with tensors and parameters, config, stage and epoch. Raises
    as `load`."""
    path = Path(path)
    content, metadata = read(path)
    if metadata.get("format") == SYSTEM.format:
        return layout.inspect(SYSTEM, path, content, metadata)
    return inspect_original(path, content)


def inspect_original(path: Path, content: object) -> dict:
    """`inspect` for a file of the original's layout, read already."""
    original = recognize(path, content)
    parts = {"var_wo_ddp": list(original.transformer.values())}
    bridge = [t for name, t in original.vqvae.items() if adapter.BRIDGE in name]
    parts["vae_local"] = [t for name, t in original.vqvae.items() if adapter.BRIDGE not in name]
    parts["bridge" if adapter.has_bridge(original) else "bridge (untrained)"] = bridge
    kind = "LoRA factors" if adapter.is_lora(original.transformer) else "pickle"
    return {
        "file": str(path),
        "format": f"GS-VAR's original layout, {kind}",
        "parts": {part: count_sizes(tensors) for part, tensors in parts.items() if tensors},
        "config": adapter.known_sizes(original),
        "stage": original.stage,
        "epoch": original.epoch,
        "iteration": original.iteration,
    }


# parts ----------------------------------------------------------------------------------------


def recognize(path: Path, content: object) -> adapter.Original:
    """A loaded file as the original's; ValueError, naming the file, if it is something else."""
    original = adapter.recognize(content)
    if original is None:
        raise ValueError(
            f"{path} is no GS-VAR checkpoint: neither of the original's layout nor ours"
        )
    if path.name.startswith("ar-ckpt") and original.stage is None:
        original = replace(original, stage=1)
    return original


def vqvae_tensors(original: adapter.Original) -> dict[str, Tensor]:
    """A file's VQ-VAE, without a bridge that is untrained."""
    bridged = adapter.has_bridge(original)
    return {k: v for k, v in original.vqvae.items() if bridged or adapter.BRIDGE not in k}


def check_depth(path: Path, config: GSVARConfig, depth: int | None) -> None:
    """ArgumentError if the file's depth is not the expected one."""
    if depth is not None and depth != config.depth:
        raise ArgumentError(f"{path} has depth {config.depth}, not {{argument}}={depth}", "depth")


def empty(config: GSVARConfig, bridge: bool) -> GSVAR:
    """A model without memory for its weights (on the meta device), to be filled."""
    with torch.device("meta"):
        model = GSVAR(config)
        if bridge:
            model.vqvae.add_bridge(identity=False)
    return model


def build(config: GSVARConfig, names: Collection[str]) -> GSVAR:
    """An empty model for tensors of these names: with a bridge where they have one."""
    return empty(config, bridge=any(name.startswith("vqvae.bridge.") for name in names))


def finish(model: GSVAR, device: torch.device | str, dtype: torch.dtype) -> GSVAR:
    """Ready for inference: eval mode, no gradients, convolutions in the layout that is fastest."""
    model = model.to(device).set_precision(dtype).to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)


class OriginalLayout:
    """The original's files, for the registry of checkpoints."""

    def recognize(self, content: object) -> bool:
        """Whether a file's content has the original's layout."""
        return adapter.recognize(content) is not None

    def load(self, path: Path, content: object) -> GSVAR:
        """The model in such a file; see `load`."""
        return finish(load_original(path, content), "cpu", torch.float32)

    def inspect(self, path: Path, content: object) -> dict:
        """What such a file is; see `inspect`."""
        return inspect_original(path, content)

    def export(self, model: GSVAR) -> dict:
        """A model as the original's scripts store it."""
        return adapter.to_original(model)


SYSTEM = System(
    format="gsvar",
    title="GS-VAR",
    config=GSVARConfig,
    build=build,
    adapter=OriginalLayout(),
    exact=("vqvae.quantizer.", "vqvae.quant_conv.", "vqvae.post_quant_conv."),
    foreign_name=adapter.foreign_name,
)
