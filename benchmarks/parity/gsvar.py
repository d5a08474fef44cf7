# GS-VAR beside the original's vectors.
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from benchmarks.parity.comparison import (
    RMS,
    TOLERANCE,
    Comparison,
    Row,
    named_weights,
    noise,
    read_arrays,
)
from models.gsvar import GSVAR, GSVARConfig, adapter, diffusion
from models.gsvar.restorer import Restorer
from models.var.scales import ScaleSchedule

BRIDGE_TOLERANCE = 1e-3


def config_of(meta: dict) -> GSVARConfig:
    """The sizes that meta.json states, the original's defaults for the rest."""
    return GSVARConfig(
        depth=meta["depth"],
        width=meta["width"],
        heads=meta["heads"],
        patch_nums=ScaleSchedule.of(meta["patch_nums"]).text,
        vqvae_width=meta["vqvae_width"],
        vocabulary=meta["vocabulary"],
        latent_channels=meta["latent_channels"],
    )


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> GSVAR:
    """The model of a parity folder: weights under the original's names, read through the adapter.

    Raises ValueError if the folder's list of names does not fit.
    """
    meta = json.loads((folder / "meta.json").read_text())
    parts = {part: named_weights(folder, part) for part in ("var", "vqvae")}
    config = config_of(meta)
    original = adapter.Original(
        parts["var"], parts["vqvae"], None, None, None, {}, {"patch_nums": meta["patch_nums"]}
    )
    sizes = adapter.transformer_sizes(original.transformer, original)
    sizes |= adapter.vqvae_sizes(original.vqvae)
    config = replace(config, **sizes)
    model = GSVAR(config)
    model.vqvae.add_bridge(identity=False)
    state, misfits = adapter.own_state(model, original.transformer, original.vqvae)
    if misfits:
        raise ValueError(f"{folder}: {'; '.join(misfits[:10])}")
    model.load_state_dict(state)
    return model.set_precision(dtype).eval().requires_grad_(False)


def read_views(folder: Path) -> Tensor:
    """Render and reference [2,3,H,W] in [-1,1]."""
    images = [
        np.asarray(Image.open(folder / f"{n}.png").convert("RGB")) for n in ("render", "reference")
    ]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def compare_vqvae(model: GSVAR, views: Tensor, expected: dict, table: Comparison) -> None:
    """Encoder, tokens, quantizer and decoder on views [2,3,H,W], with and without the bridge."""
    vqvae, grids = model.vqvae, model.config.scales.grids
    features = vqvae.encoder.features(views)
    latent = vqvae.quant_conv(vqvae.encoder.latent(features[-1], views))
    table.values("encoder: f", latent, expected["f"])
    tokens = vqvae.quantizer.encode(latent, grids)
    maps = np.concatenate([expected[f"idx_{s}"] for s in range(len(grids))], 1)
    table.tokens("token maps (fraction wrong)", torch.cat(tokens.indices, 1), maps)
    given = [torch.from_numpy(expected[f"idx_{s}"].astype(np.int64)) for s in range(len(grids))]
    f_hat = vqvae.quantizer.partial_sums(given, grids)[-1]
    table.values("f_hat", f_hat, expected["f_hat"])
    table.values("residual of the last scale", tokens.residual, expected["residual_last"])
    table.values(
        "teacher-forcing input", vqvae.quantizer.inputs(given, grids), expected["var_input"]
    )
    f_hat = torch.from_numpy(expected["f_hat"])
    table.values("decoder", vqvae.decode(f_hat)[..., ::4, ::4], expected["decoded"])
    bridged = vqvae.decode(f_hat, views, bridge=True, features=features)[..., ::4, ::4]
    table.values("decoder with bridge", bridged, expected["decoded_bridge"], BRIDGE_TOLERANCE)
    table.rms("decoder with bridge (rms)", bridged, expected["decoded_bridge"], RMS)


def compare_teacher_forcing(
    model: GSVAR, views: Tensor, inputs: Tensor, expected: dict, table: Comparison, reference: bool
) -> None:
    """Logits from the true tokens: with `reference` the views are a pair, else two samples."""
    axis, name = (0, "with reference") if reference else (1, "without reference")
    labels = model.default_labels(2) if reference else torch.zeros(2, 1, dtype=torch.long)
    hidden = model(views.unsqueeze(axis), inputs.unsqueeze(axis), labels)
    logits = model.logits(hidden, labels).flatten(0, 1)
    table.values(f"logits {name}", logits[:, expected["positions"]], expected["logits"])
    table.tokens(f"argmax {name} (fraction wrong)", logits.argmax(-1), expected["argmax"])


def compare_decoding(model: GSVAR, views: Tensor, expected: dict, table: Comparison) -> None:
    """Greedy decoding of the render; the reference keeps its own tokens."""
    scales, quantizer = model.config.scales, model.vqvae.quantizer
    labels = model.default_labels(2)
    hiddens: list[Tensor] = []
    restorer = Restorer(model)
    f_hat = restorer.restore(
        views[:1],
        views[None, 1:],
        draw=lambda k, shape: noise(f"noise.{k}", (2 * shape[0], shape[1]))[: shape[0]],
        observer=lambda scale, hidden: hiddens.append(hidden),
    )
    worst, ours, theirs = Comparison(), [], []
    for scale, hidden in enumerate(hiddens):
        logits = model.logits(hidden, labels)[0]
        worst.values("", logits[:, expected[f"pos_{scale}"]], expected[f"logits_{scale}"])
        ours.append(logits[:, -1:].argmax(-1) if scale == 0 else logits.argmax(-1))
        theirs.append(expected[f"argmax_{scale}"])
    table.rows.append(Row("decoding: logits", max(row.error for row in worst.rows), TOLERANCE))
    table.tokens("decoding: tokens (fraction wrong)", torch.cat(ours, 1), np.concatenate(theirs, 1))
    table.values("decoding: last block", hiddens[-1][0, :, ::64], expected["last_hidden"])

    own = model.vqvae.tokens(views[1:], scales.grids).indices
    last = torch.cat((ours[-1][:1], own[-1]))
    condition = model.refiner_condition(hiddens[-1][0], last).flatten(0, 1)
    rows, columns = scales.latent
    residual = restorer.refine(
        condition, refiner="ancestral", steps=10, draw=lambda k, shape: noise(f"noise.{k}", shape)
    )
    residual = rearrange(residual, "(v r c) z -> v z r c", r=rows, c=columns)
    table.chain("decoding: refiner", residual, expected["refiner_residual"])
    reference = quantizer.partial_sums(own, scales.grids)[-1] + residual[1:]
    table.chain("decoding: f_hat", torch.cat((f_hat, reference)), expected["f_hat"])


def compare_refiner(model: GSVAR, expected: dict, table: Comparison) -> None:
    """The refiner's network, its sampler, its noise process and its losses."""
    n, channels = expected["sample"].shape
    condition = noise("refiner.condition", (n, model.config.width))
    x, t = noise("refiner.x_t", (n, channels)), torch.from_numpy(expected["t"])
    table.values("refiner: network", model.refiner(x, t, condition), expected["denoiser_out"])
    sample = Restorer(model).refine(
        condition, refiner="ancestral", steps=10, draw=lambda k, shape: noise(f"noise.{k}", shape)
    )
    table.values("refiner: sample", sample, expected["sample"])
    process, full = diffusion.respaced_process(10), diffusion.training_process()
    table.tokens("refiner: timesteps", process.t, expected["timestep_map"])
    table.values("refiner: betas", process.betas, expected["betas_respaced"], 1e-9)
    table.values("refiner: alphas_cumprod", full.alphas_bar, expected["alphas_cumprod_train"], 1e-9)
    target = 0.5 * noise("refiner.target", (n, channels)) / diffusion.TARGET_SCALE
    eps = noise("refiner.train_noise", (n, channels))
    noised = full.noised(target, t, eps)
    squared, bound = diffusion.losses(model.refiner(noised, t, condition), target, noised, t, eps)
    table.values("refiner: squared error", squared, expected["train_mse"])
    table.values("refiner: bound", bound, expected["train_vb"])
    table.values("refiner: loss", squared + bound, expected["train_loss"])


@torch.no_grad()
def compare(folder: Path) -> list[Row]:
    """All comparisons that a folder's files allow."""
    model, views, table = load_model(folder), read_views(folder), Comparison()

    vqvae = read_arrays(folder, "vqvae")
    compare_vqvae(model, views, vqvae, table)
    inputs = torch.from_numpy(vqvae["var_input"])
    for name, reference in (("ref", True), ("noref", False)):
        theirs = read_arrays(folder, f"var_teacher_forcing_{name}")
        compare_teacher_forcing(model, views, inputs, theirs, table, reference)
    compare_decoding(model, views, read_arrays(folder, "var_autoregressive_ref"), table)
    compare_refiner(model, read_arrays(folder, "refiner"), table)
    return table.rows
