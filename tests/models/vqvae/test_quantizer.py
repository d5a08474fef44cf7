# The multi-scale residual quantizer: its tokens explain the latent, and its shortcuts agree.
import pytest
import torch
import torch.nn.functional as F

from models.vqvae.config import VQVAEConfig
from models.vqvae.quantizer import Quantizer, phi_of_scales

GRIDS = [(1, 1), (2, 2), (3, 3), (4, 4)]


@pytest.fixture
def quantizer():
    torch.manual_seed(0)
    return Quantizer(VQVAEConfig(latent_channels=8, vocabulary=50)).double()


def test_the_published_phi_tables():
    assert phi_of_scales(10, 4) == (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)
    assert phi_of_scales(12, 4) == (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)
    assert phi_of_scales(4, 4) == (0, 1, 2, 3)
    assert phi_of_scales(1, 4) == (0,)


@torch.no_grad()
def test_residual_and_sum_of_codes_give_the_latent_back(quantizer):
    latent = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    tokens = quantizer.encode(latent, GRIDS)
    sums = quantizer.partial_sums(tokens.indices, GRIDS)
    residual = tokens.residual.transpose(1, 2).view_as(latent)
    torch.testing.assert_close(sums[-2] + residual, latent)
    codes = quantizer.codebook(tokens.indices[-1]).transpose(1, 2).view_as(latent)
    torch.testing.assert_close(sums[-1], sums[-2] + codes)  # no phi on the last scale


@torch.no_grad()
def test_each_index_is_the_nearest_code(quantizer):
    z = torch.randn(2, 30, 8, dtype=torch.float64)
    distance = (z[:, :, None] - quantizer.codebook.weight).square().sum(-1)
    assert torch.equal(quantizer.nearest(z), distance.argmin(-1))


@torch.no_grad()
def test_phi_on_last_is_the_only_difference_of_a_plain_var_tokenizer(quantizer):
    vectors = torch.randn(1, 16, 8, dtype=torch.float64)
    plain = quantizer.spread(vectors, 3, GRIDS)
    quantizer.phi_on_last = True
    with_phi = quantizer.spread(vectors, 3, GRIDS)
    torch.testing.assert_close(with_phi, 0.5 * plain + 0.5 * quantizer.phis[3](plain))


@torch.no_grad()
@pytest.mark.parametrize("grids", [GRIDS, [(1, 1), (1, 2), (2, 3), (3, 6)]])
def test_teacher_forcing_inputs_are_the_downsampled_partial_sums(quantizer, grids):
    rows, columns = grids[-1]
    tokens = quantizer.encode(torch.randn(2, 8, rows, columns, dtype=torch.float64), grids)
    inputs = quantizer.inputs(tokens.indices, grids)
    assert inputs.shape == (2, sum(r * c for r, c in grids[1:]), 8)
    start = 0
    for f, grid in zip(quantizer.partial_sums(tokens.indices, grids), grids[1:], strict=False):
        n = grid[0] * grid[1]
        expected = F.adaptive_avg_pool2d(f, grid).flatten(2).transpose(1, 2)
        torch.testing.assert_close(inputs[:, start : start + n], expected)
        start += n
