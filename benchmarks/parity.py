# Parity with the original networks: python -m benchmarks.parity DIR
# The folder holds inputs and expected outputs; weights are generated from the parameters' names.
import json
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro
from einops import rearrange
from PIL import Image
from torch import Tensor

from models.gsvar import GSVAR, GSVARConfig, adapter, diffusion
from models.gsvar.restorer import Restorer
from models.var.scales import ScaleSchedule
from runtime.command import run_command
from runtime.flags import parse_command

TOLERANCE = 1e-4  # largest absolute error over the array's deviation
BRIDGE_TOLERANCE, RMS = 1e-3, 2e-5
OUTLIERS = 0.005  # of a chain of steps may be beyond TOLERANCE
TOKENS = 0.999  # of the token maps must be equal


@dataclass(frozen=True)
class Row:
    """One comparison: its error and the largest error that passes."""

    name: str
    error: float
    limit: float

    @property
    def passes(self) -> bool:
        """Whether the error is within the limit."""
        return self.error <= self.limit


def named_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter [shape] float32 that a full name stands for."""
    a = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if a.ndim >= 2:
        return a / np.float32(np.sqrt(np.prod(shape[1:])))
    return 1 + np.float32(0.1) * a if name.endswith(".weight") else np.float32(0.1) * a


def noise(name: str, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers [shape], seeded with a name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


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
    keys, prefix = json.loads((folder / "keys.json").read_text()), meta.get("name_prefix", "")
    parts = {
        part: {
            name: torch.from_numpy(named_weight(prefix + name, tuple(keys[part][name])))
            for name in keys[f"{part}_parameters"]
        }
        for part in ("var", "vqvae")
    }
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


class Comparison:
    """A table with a row for each comparison."""

    def __init__(self):
        self.rows: list[Row] = []

    def values(self, name: str, ours: Tensor, theirs: np.ndarray, limit: float = TOLERANCE) -> None:
        """Largest absolute error over the expected array's deviation."""
        theirs = theirs.astype(np.float64)
        error = np.abs(ours.double().numpy() - theirs).max() / theirs.std()
        self.rows.append(Row(name, float(error), limit))

    def rms(self, name: str, ours: Tensor, theirs: np.ndarray, limit: float) -> None:
        """Root mean square error over the deviation."""
        difference = ours.double().numpy() - theirs
        self.rows.append(Row(name, float(np.sqrt(np.mean(difference**2)) / theirs.std()), limit))

    def chain(self, name: str, ours: Tensor, theirs: np.ndarray) -> None:
        """Two rows for the end of many steps, each of which amplifies float32's rounding: the rms
        error, and the fraction of values beyond TOLERANCE, both over the deviation."""
        self.rms(f"{name} (rms)", ours, theirs, RMS)
        beyond = np.abs(ours.double().numpy() - theirs) > TOLERANCE * theirs.std()
        self.rows.append(Row(f"{name} (fraction beyond)", float(beyond.mean()), OUTLIERS))

    def tokens(self, name: str, ours: Tensor, theirs: np.ndarray) -> None:
        """Fraction of token indices that differ."""
        wrong = float((ours.numpy() != theirs).mean())
        self.rows.append(Row(name, wrong, 1 - TOKENS if theirs.size > 100 else 0.0))


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

    def expected(name: str) -> dict:
        with np.load(folder / f"{name}.npz") as file:
            return dict(file)

    vqvae = expected("vqvae")
    compare_vqvae(model, views, vqvae, table)
    inputs = torch.from_numpy(vqvae["var_input"])
    for name, reference in (("ref", True), ("noref", False)):
        theirs = expected(f"var_teacher_forcing_{name}")
        compare_teacher_forcing(model, views, inputs, theirs, table, reference)
    compare_decoding(model, views, expected("var_autoregressive_ref"), table)
    compare_refiner(model, expected("refiner"), table)
    return table.rows


@dataclass(frozen=True)
class Options:
    """Compare the networks with vectors of the original ones; exit code 1 beyond the tolerances."""

    folder: tyro.conf.Positional[Path]
    """meta.json, keys.json, render.png, reference.png and the .npz files."""


def main(folder: Path) -> None:
    """Print the errors by network; exit code 1 beyond the tolerances."""
    for name in ("meta.json", "keys.json", "render.png", "reference.png", "vqvae.npz"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing: name a folder of parity vectors")
    rows = compare(folder)
    print(f"{'largest error / deviation':<36} {'error':>10} {'limit':>10}")
    for row in rows:
        print(
            f"{row.name:<36} {row.error:10.2e} {row.limit:10.0e}  {'ok' if row.passes else 'FAILS'}"
        )
    if not all(row.passes for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    run_command(lambda: main(parse_command(Options, "python -m benchmarks.parity").folder))
