# The linear shortcut: a block cosine transform from the first step on.
from dataclasses import replace

import pytest
import torch

from models.vqvae.config import VQVAEConfig
from models.vqvae.model import VQVAE
from models.vqvae.shortcut import cosine_basis

SMALL = VQVAEConfig(
    width=16, multipliers=(1, 1, 2), res_blocks=1, groups=8, latent_channels=12, vocabulary=16
)


@pytest.mark.parametrize(("channels", "size"), [(3, 4), (12, 4), (16, 16), (48, 4)])
def test_the_basis_is_orthonormal_and_begins_with_brightness(channels, size):
    basis = cosine_basis(channels, size).double()
    flat = basis.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(channels).double(), atol=1e-6, rtol=0)
    assert basis[0].std() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2])
def test_a_new_tokenizer_projects_on_the_basis(patch):
    torch.manual_seed(0)
    vqvae = VQVAE(replace(SMALL, patch=patch, shortcut=True))
    stride = vqvae.config.stride
    images = torch.rand(2, 3, 2 * stride, 3 * stride) * 2 - 1
    basis = cosine_basis(12, stride).flatten(1)
    blocks = images.unfold(2, stride, stride).unfold(3, stride, stride)  # [B,3,2,3,s,s]
    flat = blocks.permute(0, 2, 3, 1, 4, 5).flatten(3)
    expected = (flat @ basis.T @ basis).view(2, 2, 3, 3, stride, stride)
    expected = expected.permute(0, 3, 1, 4, 2, 5).reshape(images.shape)
    torch.testing.assert_close(vqvae.decode(vqvae.latent(images)), expected, atol=1e-5, rtol=0)
    flat_colour = torch.tensor([0.3, -0.8, 0.1]).view(1, 3, 1, 1).expand(1, 3, stride, stride)
    torch.testing.assert_close(
        vqvae.decode(vqvae.latent(flat_colour)), flat_colour, atol=1e-5, rtol=0
    )


def test_networks_and_shortcut_learn_together():
    torch.manual_seed(0)
    vqvae = VQVAE(replace(SMALL, shortcut=True))
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    vqvae.decode(vqvae.latent(images)).sub(images).square().mean().backward()
    for name in (
        "encoder.conv_out",
        "encoder.shortcut",
        "decoder.conv_out",
        "decoder.shortcut.conv",
    ):
        assert vqvae.get_submodule(name).weight.grad.abs().max() > 0, name
