# ArchonView beside the original's vectors.
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.parity.comparison import Comparison, Row, named_weights, read_arrays
from models.archonview import ArchonView
from models.archonview.adapter import LAYOUT
from models.archonview.pose import relative_pose
from models.var.sampler import Sampling

PICTURES = ("source", "target")


def load_model(folder: Path) -> ArchonView:
    """The model of a parity folder, read through the adapter."""
    meta = json.loads((folder / "meta.json").read_text())
    lengths = torch.tensor([n * n for n in meta["patch_nums"]])
    transformer = named_weights(folder, "var")
    transformer["lvl_1L"] = torch.arange(len(lengths)).repeat_interleave(lengths)[None]
    content = {"trainer": {"var_wo_ddp": transformer, "vae_local": named_weights(folder, "vqvae")}}
    model = LAYOUT.load(folder, content)
    model.null_embedding.copy_(
        torch.from_numpy(read_arrays(folder, "condition")["null_embedding"])[0]
    )
    return model


def read_pictures(folder: Path) -> Tensor:
    """Source and target, [2,3,H,W] in [-1,1]."""
    images = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in PICTURES]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def compare_conditions(folder: Path, model: ArchonView, table: Comparison) -> tuple[Tensor, Tensor]:
    """Poses and conditions; returns embeddings and poses."""
    theirs = read_arrays(folder, "condition")
    source, target = (torch.from_numpy(theirs[f"w2c_{name}"]) for name in PICTURES)
    table.values("pose", relative_pose(source, target), theirs["pose"])
    embeddings, poses = torch.from_numpy(theirs["embedding"]), torch.from_numpy(theirs["pose"])
    table.values("condition", model.conditions(embeddings, poses[:3]), theirs["cond"])
    table.values("condition: none", model.null_condition(), theirs["cond_null"])
    return embeddings, poses


def compare_tokenizer(folder: Path, model: ArchonView, table: Comparison) -> list[Tensor]:
    """The tokenizer; returns the codes of both pictures."""
    theirs, pictures = read_arrays(folder, "vqvae"), read_pictures(folder)
    grids, quantizer = model.config.scales.grids, model.vqvae.quantizer
    table.values("tokenizer: latent", model.vqvae.latent(pictures), theirs["f"])
    codes = model.codes(pictures)
    for k, own in enumerate(codes):
        table.tokens(f"tokenizer: codes {k}", own, theirs[f"idx_{k}"])
    codes = [torch.from_numpy(theirs[f"idx_{k}"]).long() for k in range(len(grids))]
    table.values("tokenizer: sum", quantizer.partial_sums(codes, grids)[-1], theirs["f_hat"])
    table.values(
        "tokenizer: inputs", quantizer.inputs(codes, grids)[:, ::5], theirs["teacher_input"]
    )
    decoded = model.vqvae.decode(quantizer.partial_sums(codes, grids)[-1]).clamp(-1, 1)
    table.values("tokenizer: decoded", decoded[..., ::4, ::4], theirs["decoded"], 1e-3)
    return codes


def compare_teacher_forcing(
    folder: Path, model: ArchonView, codes: list[Tensor], conditions: Tensor, table: Comparison
) -> None:
    """Logits and streams of all scales at once."""
    theirs, meta = (
        read_arrays(folder, "teacher_forcing"),
        json.loads((folder / "meta.json").read_text()),
    )
    swapped, hidden = [c.flip(0) for c in codes], []
    maps = model.vqvae.quantizer.inputs(swapped, model.config.scales.grids)
    logits = model(model.source_tokens(codes), conditions, maps, hidden=hidden)
    some = logits[:, theirs["positions"], :: meta["vocabulary_step"]]
    table.values("teacher forcing: logits", some, theirs["logits"])
    table.tokens("teacher forcing: likeliest", logits.argmax(-1), theirs["argmax"])
    length, places = model.config.scales.length, theirs["hidden_positions"]
    streams = torch.stack(hidden)
    table.values("teacher forcing: source", streams[:, :, places], theirs["hidden_source"])
    table.values("teacher forcing: target", streams[:, :, length + places], theirs["hidden_target"])


def compare_decoding(
    folder: Path,
    model: ArchonView,
    codes: list[Tensor],
    embeddings: Tensor,
    poses: Tensor,
    table: Comparison,
) -> None:
    """Decoding scale by scale, arg-max and with given draws."""
    greedy, meta = read_arrays(folder, "greedy"), json.loads((folder / "meta.json").read_text())
    given = codes, embeddings[:2], poses[:2]
    for name in ("cfg", "nocfg", "cfg_masked", "nocfg_masked"):
        guidance = 0.0 if name.startswith("no") else meta["cfg"]
        f_hat, tokens = model.generate(
            *given,
            sampling=Sampling(guidance=guidance),
            source_sees_start=not name.endswith("masked"),
        )
        table.tokens(f"{name}: tokens", torch.cat(tokens, 1), greedy[f"{name}_tokens"])
        if f"{name}_f_hat" in greedy:
            table.values(f"{name}: sum", f_hat, greedy[f"{name}_f_hat"])
            image = (model.vqvae.decode(f_hat).clamp(-1, 1) + 1) / 2
            table.values(f"{name}: picture", image[..., ::4, ::4], greedy[f"{name}_image"], 1e-3)
    theirs = read_arrays(folder, "sampled")
    starts = np.cumsum([0, *model.config.scales.lengths])
    numbers = torch.from_numpy(theirs["u"])
    f_hat, tokens = model.generate(
        *given,
        sampling=Sampling(meta["top_k"], meta["top_p"], meta["cfg"]),
        uniforms=lambda scale, shape: numbers[:, starts[scale] : starts[scale + 1]],
        source_sees_start=True,
    )
    table.tokens("sampled: tokens", torch.cat(tokens, 1), theirs["sampled_tokens"])
    table.values("sampled: sum", f_hat, theirs["sampled_f_hat"])


@torch.no_grad()
def compare(folder: Path) -> list[Row]:
    """All comparisons that a folder's files allow."""
    model, table = load_model(folder), Comparison()
    embeddings, poses = compare_conditions(folder, model, table)
    codes = compare_tokenizer(folder, model, table)
    conditions = model.conditions(embeddings[:2], poses[:2])
    compare_teacher_forcing(folder, model, codes, conditions, table)
    compare_decoding(folder, model, codes, embeddings, poses, table)
    return table.rows
