# The networks against vectors made by the original ones, where those are here.
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.parity import Comparison, compare, load_model, read_views

FOLDER = Path(__file__).parents[3].parent / "shared/parity/gsvar"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/parity/gsvar is not here")
def test_the_networks_are_the_originals():
    rows = compare(FOLDER)
    assert len(rows) >= 20
    assert [f"{row.name}: {row.error:.1e}" for row in rows if not row.passes] == []


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/parity/gsvar is not here")
@torch.no_grad()
def test_in_bf16_they_are_the_originals_within_its_rounding():
    """Root mean square errors over the deviation: bf16 has steps of 0.4 to 0.8 %, and
    random weights add up what layers round, the bridge's most, as in float32."""
    model, views = load_model(FOLDER, torch.bfloat16), read_views(FOLDER)
    files = ("vqvae", "var_teacher_forcing_ref", "var_teacher_forcing_noref")
    vqvae, ref, noref = (dict(np.load(FOLDER / f"{name}.npz")) for name in files)
    table = Comparison()
    f_hat = torch.from_numpy(vqvae["f_hat"])
    table.rms("f", model.vqvae.latent(views), vqvae["f"], 0.03)
    table.rms("decoder", model.vqvae.decode(f_hat)[..., ::4, ::4], vqvae["decoded"], 0.04)
    bridged = model.vqvae.decode(f_hat, views, bridge=True)[..., ::4, ::4]
    table.rms("decoder with bridge", bridged, vqvae["decoded_bridge"], 0.12)
    inputs = torch.from_numpy(vqvae["var_input"])
    for expected, axis in ((ref, 0), (noref, 1)):
        labels = model.default_labels(2) if axis == 0 else torch.zeros(2, 1, dtype=torch.long)
        hidden = model(views.unsqueeze(axis), inputs.unsqueeze(axis), labels)
        logits = model.logits(hidden, labels).flatten(0, 1)
        table.rms("logits", logits[:, expected["positions"]], expected["logits"], 0.01)
    assert [f"{row.name}: {row.error:.1e}" for row in table.rows if not row.passes] == []
