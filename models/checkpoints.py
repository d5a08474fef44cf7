# Weights on disk: inspect, convert, load, save. Ours are safetensors with the config in the
# metadata; the originals' pickles are read without executing them, and can be written.
import json
import logging
import os
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
import tyro
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.gsvar import GSVAR, GSVARConfig, adapter

FORMAT = "gsvar"
EXACT = ("vqvae.quantizer.", "vqvae.quant_conv.", "vqvae.post_quant_conv.")  # never rounded
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
    of tensors.
    """
    path = Path(path)
    content, metadata = read(path)
    if metadata.get("format") == FORMAT and vqvae is None:
        config = own_config(path, metadata)
        check_depth(path, config, depth)
        model = empty(config, bridge=any(name.startswith("vqvae.bridge.") for name in content))
        fill(model, content, own_complaints(model, content), path)
        return finish(model, device, dtype)
    if metadata.get("format") == FORMAT:
        return with_vqvae(load(path, depth=depth), Path(vqvae), device, dtype)

    original = recognised(path, content)
    if adapter.is_lora(original.transformer):
        if base is None:
            raise ValueError(
                f"{path} holds LoRA factors only: name the base model they go on as well"
            )
        model = load(base, vqvae=vqvae, depth=depth)
        try:
            adapter.put_lora(model, original.transformer, original.args)
        except ValueError as e:
            raise ValueError(f"{path}: {e}") from None
        return finish(model, device, dtype)
    if not original.transformer:
        raise ValueError(
            f"{path} holds a VQ-VAE and no transformer: give it as --vae_model_path, "
            "beside an ar-ckpt or VARSR.pth"
        )
    home, source = path, original
    if vqvae is not None and Path(vqvae) != path:
        home = Path(vqvae)
        source = recognised(home, read(home)[0])
    if not source.vqvae:
        raise ValueError(f"{home} holds no VQ-VAE: name the file that does (--vae_model_path)")
    bridged = adapter.has_bridge(source)
    tensors = {k: v for k, v in source.vqvae.items() if bridged or adapter.BRIDGE not in k}
    if len(tensors) < len(source.vqvae):
        log.info("%s is a stage-1 file: its VAE-bridge is untrained and is left out", home)
    try:
        config = adapter.config_of(original, tensors)
    except (ValueError, TypeError) as e:
        raise ValueError(f"{path}: {e}") from None
    check_depth(path, config, depth)
    model = empty(config, bridged)
    state, complaints = adapter.own_state(model, original.transformer, tensors)
    fill(model, state, complaints, path)
    return finish(model, device, dtype)


def save(
    model: GSVAR,
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model as safetensors, config in the metadata; an old one stays until all is there.
    `dtype`: rounded to it, the quantizer's sums of codes excepted."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    if dtype is not None:
        tensors = {k: t if k.startswith(EXACT) else t.to(dtype) for k, t in tensors.items()}
    texts = {"format": FORMAT, "config": json.dumps(asdict(model.config)), **(metadata or {})}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=texts)


def save_original(
    model: GSVAR, path: str | Path, *, epoch: int = 0, iteration: int = 0, args: dict | None = None
) -> None:
    """Write a model in the original's layout (`trainer` with `var_wo_ddp` and `vae_local`)."""
    content = adapter.to_original(model, epoch=epoch, iteration=iteration, args=args)
    with replacing(path) as temporary:
        torch.save(content, temporary)


def inspect(path: str | Path) -> dict:
    """What a file is: format, parts with tensors and parameters, config, stage and epoch."""
    path = Path(path)
    content, metadata = read(path)
    if metadata.get("format") == FORMAT:
        config = own_config(path, metadata)
        parts: dict[str, list[Tensor]] = {}
        for name, tensor in content.items():
            part = ".".join(name.split(".")[: 2 if name.startswith("vqvae.") else 1])
            parts.setdefault(part, []).append(tensor)
        others = {k: v for k, v in metadata.items() if k not in ("format", "config")}
        return {
            "file": str(path),
            "format": "GS-VAR, safetensors",
            "parts": {part: sizes(tensors) for part, tensors in parts.items()},
            "config": asdict(config),
            **others,
        }
    original = recognised(path, content)
    parts = {"var_wo_ddp": list(original.transformer.values())}
    bridge = [t for name, t in original.vqvae.items() if adapter.BRIDGE in name]
    parts["vae_local"] = [t for name, t in original.vqvae.items() if adapter.BRIDGE not in name]
    parts["bridge" if adapter.has_bridge(original) else "bridge (untrained)"] = bridge
    config = adapter.known_sizes(original)
    kind = "LoRA factors" if adapter.is_lora(original.transformer) else "pickle"
    return {
        "file": str(path),
        "format": f"GS-VAR's original layout, {kind}",
        "parts": {part: sizes(tensors) for part, tensors in parts.items() if tensors},
        "config": config,
        "stage": original.stage,
        "epoch": original.epoch,
        "iteration": original.iteration,
    }


def convert(
    source: str | Path,
    target: str | Path,
    *,
    vqvae: str | Path | None = None,
    base: str | Path | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Read any file that `load` reads; write ours (.safetensors, in `dtype`) or the original's
    (.pth)."""
    suffix = Path(target).suffix
    if suffix not in (".safetensors", ".pth"):
        raise ValueError(
            f"{target}: end the name in .safetensors (ours) or .pth (the original's layout)"
        )
    model = load(source, vqvae=vqvae, base=base)
    if suffix == ".pth":
        save_original(model, target)
    else:
        save(model, target, dtype=dtype)


# parts ----------------------------------------------------------------------------------------


def read(path: Path) -> tuple[Mapping, dict[str, str]]:
    """A file's content and its metadata; nothing in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
        except SafetensorError as e:
            raise ValueError(f"{path} is damaged or no safetensors file ({e})") from None
    try:
        # mapped, so that an optimiser state of many GB is not read; the old format cannot be
        mmap = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap), {}
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path} is no checkpoint, or one with code in it, which is refused: only tensors "
            "and plain values are read"
        ) from None
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, AttributeError) as e:
        reason = str(e).split("\n")[0][:120]
        raise ValueError(f"{path} is truncated or no checkpoint ({reason})") from None


def recognised(path: Path, content: object) -> adapter.Original:
    original = adapter.recognise(content)
    if original is None:
        raise ValueError(
            f"{path} is no GS-VAR checkpoint: neither of the original's layout nor ours"
        )
    if path.name.startswith("ar-ckpt") and original.stage is None:
        original = replace(original, stage=1)
    return original


def own_config(path: Path, metadata: Mapping[str, str]) -> GSVARConfig:
    try:
        return GSVARConfig(**json.loads(metadata["config"]))
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"{path}: its config cannot be read ({e})") from None


def check_depth(path: Path, config: GSVARConfig, depth: int | None) -> None:
    if depth is not None and depth != config.depth:
        raise ValueError(f"{path} has depth {config.depth}, not --depth={depth}")


def empty(config: GSVARConfig, bridge: bool) -> GSVAR:
    """A model without memory for its weights, to be filled."""
    with torch.device("meta"):
        model = GSVAR(config)
        if bridge:
            model.vqvae.add_bridge(identity=False)
    return model


def own_complaints(model: GSVAR, content: Mapping[str, Tensor]) -> list[str]:
    mine = model.state_dict()
    complaints = [f"{name} is missing" for name in mine if name not in content]
    complaints += [f"{name} is unexpected" for name in content if name not in mine]
    return complaints + [
        f"{name} is {list(content[name].shape)} instead of {list(t.shape)}"
        for name, t in mine.items()
        if name in content and content[name].shape != t.shape
    ]


def fill(model: GSVAR, state: Mapping[str, Tensor], complaints: list[str], path: Path) -> None:
    """Put a whole, finite set of tensors into an empty model."""
    if complaints:
        more = f", and {len(complaints) - 20} more" if len(complaints) > 20 else ""
        raise ValueError(f"{path} does not fit: {'; '.join(complaints[:20])}{more}")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            foreign = adapter.foreign_name(name)
            raise ValueError(f"{path}: the tensor {name} ({foreign}) holds NaN or infinity")
    floats = {name: t.to(torch.float32, copy=True) for name, t in state.items()}
    model.load_state_dict(floats, assign=True)


def finish(model: GSVAR, device: torch.device | str, dtype: torch.dtype) -> GSVAR:
    """Ready for inference: eval mode, no gradients, convolutions in the layout that is fastest."""
    model = model.to(device).set_precision(dtype).to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)


def with_vqvae(model: GSVAR, path: Path, device: torch.device | str, dtype: torch.dtype) -> GSVAR:
    """The model with the tokenizer and bridge of another file."""
    content, metadata = read(path)
    if metadata.get("format") == FORMAT:
        tensors = {k: v for k, v in content.items() if k.startswith("vqvae.")}
        bridged = any(k.startswith("vqvae.bridge.") for k in tensors)
        other = empty(model.config, bridged)
        state = {
            k: v for k, v in model.state_dict().items() if not k.startswith("vqvae.")
        } | tensors
        fill(other, state, own_complaints(other, state), path)
        return finish(other, device, dtype)
    source = recognised(path, content)
    bridged = adapter.has_bridge(source)
    tensors = {k: v for k, v in source.vqvae.items() if bridged or adapter.BRIDGE not in k}
    other = empty(model.config, bridged)
    transformer = adapter.to_original(model)["trainer"]["var_wo_ddp"]
    state, complaints = adapter.own_state(other, transformer, tensors)
    fill(other, state, complaints, path)
    return finish(other, device, dtype)


def sizes(tensors: list[Tensor]) -> dict[str, int]:
    return {"tensors": len(tensors), "parameters": sum(t.numel() for t in tensors)}


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it if the block succeeds, else removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(
        prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
    )
    os.close(descriptor)
    try:
        yield Path(name)
        Path(name).chmod(0o666 & ~umask())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def main() -> None:
    """python -m models.checkpoints inspect FILE | convert IN OUT [--vqvae FILE] [--base FILE]"""

    def show(file: tyro.conf.Positional[Path]) -> None:
        """Say what a checkpoint is: parts, sizes, config.

        Args:
            file: a .safetensors of ours, or a .pth of the original.
        """
        for key, value in inspect(file).items():
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

    def change(
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
        if bf16 and target.suffix != ".safetensors":
            raise ValueError(f"{target}: --bf16 is for .safetensors")
        dtype = torch.bfloat16 if bf16 else None
        convert(source, target, vqvae=vqvae, base=base, dtype=dtype)
        print(f"wrote {target}")

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        tyro.extras.subcommand_cli_from_dict(
            {"inspect": show, "convert": change}, prog="python -m models.checkpoints"
        )
    except BrokenPipeError:  # whoever read the output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
