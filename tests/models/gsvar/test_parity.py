# The networks against vectors made by the original ones, where those are here.
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.parity.comparison import Comparison
from benchmarks.parity.gsvar import compare, load_model, read_views
from models.gsvar import GSVAR
from runtime.precision import multiplies_bf16

FOLDER = Path(__file__).parents[3].parent / "shared/parity/gsvar"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/parity/gsvar is not here")
def test_the_networks_are_the_originals():
    rows = compare(FOLDER)
    assert len(rows) >= 20
    assert [f"{row.name}: {row.error:.1e}" for row in rows if not row.passes] == []


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/parity/gsvar is not here")
@pytest.mark.skipif(not multiplies_bf16("cpu"), reason="this processor emulates bfloat16")
@torch.no_grad()
def test_in_bf16_they_are_the_originals_within_its_rounding():
    """Whole pictures, against the originals' float32."""
    vqvae, ref, noref = (
        dict(np.load(FOLDER / f"{name}.npz"))
        for name in ("vqvae", "var_teacher_forcing_ref", "var_teacher_forcing_noref")
    )
    f_hat, inputs = (torch.from_numpy(vqvae[name]) for name in ("f_hat", "var_input"))
    decoded = outputs(load_model(FOLDER, torch.bfloat16), read_views(FOLDER), f_hat, inputs)
    for name in ("decoder", "decoder with bridge"):
        decoded[name] = decoded[name][..., ::4, ::4]
    for name, file in (("logits", ref), ("logits without reference", noref)):
        decoded[name] = decoded[name][:, file["positions"]]
    expected = {"f": vqvae["f"], "decoder": vqvae["decoded"]}
    expected |= {"decoder with bridge": vqvae["decoded_bridge"]}
    expected |= {"logits": ref["logits"], "logits without reference": noref["logits"]}
    assert_near(decoded, expected)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/parity/gsvar is not here")
@torch.no_grad()
def test_in_bf16_small_pictures_are_those_of_float32_within_its_rounding():
    """The same bounds on a corner of the pictures, which every processor can compute: some
    emulate bfloat16, hundreds of times slower."""
    whole = load_model(FOLDER)
    exact, half = (shortened(whole, dtype) for dtype in (torch.float32, torch.bfloat16))
    views, grids = read_views(FOLDER)[..., 200:264, 200:264], exact.config.scales.grids
    quantizer, indices = exact.vqvae.quantizer, exact.vqvae.tokens(views, grids).indices
    f_hat, inputs = quantizer.partial_sums(indices, grids)[-1], quantizer.inputs(indices, grids)
    expected = outputs(exact, views, f_hat, inputs)
    half = outputs(half, views, f_hat, inputs)
    assert_near(half, {name: value.numpy() for name, value in expected.items()})


BOUNDS = {
    "f": 0.03,
    "decoder": 0.04,
    "decoder with bridge": 0.12,
    "logits": 0.01,
    "logits without reference": 0.01,
}
"""Root mean square errors over the deviation: bf16 has steps of 0.4 to 0.8 %, and random weights
add up what layers round, the bridge's most, as in float32."""


def shortened(whole, dtype):
    """The same weights in a model of the first four scales, for 64x64 pixels."""
    model = GSVAR(replace(whole.config, patch_nums="1_2_3_4"))
    model.vqvae.add_bridge(identity=False)
    state = whole.state_dict()
    for name, own in model.state_dict().items():
        state[name] = state[name][tuple(map(slice, own.shape))]
    model.load_state_dict(state)
    return model.set_precision(dtype).eval().requires_grad_(False)


def outputs(model, views, f_hat, inputs):
    """What each part of the network computes of views [2,3,H,W]."""
    result = {
        "f": model.vqvae.latent(views),
        "decoder": model.vqvae.decode(f_hat),
        "decoder with bridge": model.vqvae.decode(f_hat, views, bridge=True),
    }
    for axis, name in ((0, "logits"), (1, "logits without reference")):
        labels = model.default_labels(2) if axis == 0 else torch.zeros(2, 1, dtype=torch.long)
        hidden = model(views.unsqueeze(axis), inputs.unsqueeze(axis), labels)
        result[name] = model.logits(hidden, labels).flatten(0, 1)
    return result


def assert_near(ours, expected):
    table = Comparison()
    for name, limit in BOUNDS.items():
        table.rms(name, ours[name], expected[name], limit)
    assert [f"{row.name}: {row.error:.1e}" for row in table.rows if not row.passes] == []
