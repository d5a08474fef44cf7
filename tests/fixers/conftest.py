# A GS-VAR small enough for a CPU in milliseconds, on disk and as a fixer.
import pytest
import torch

from fixers.gsvar import GSVARFixer
from models.gsvar import GSVAR, GSVARConfig, loading


def micro(**changes) -> GSVARConfig:
    """32x32 pixels, 4x4 latents."""
    sizes = {
        "depth": 2,
        "width": 32,
        "heads": 2,
        "patch_nums": "1_2_3_4",
        "prefix_channels": (8, 8, 16, 16),
        "refiner_width": 32,
        "refiner_blocks": 1,
        "vqvae_width": 16,
        "vqvae_multipliers": (1, 1, 2, 2),
        "vqvae_blocks": 1,
        "vqvae_groups": 8,
        "latent_channels": 8,
        "vocabulary": 64,
    }
    return GSVARConfig(**(sizes | changes))


@pytest.fixture
def model():
    """model(**changes): random weights, a bridge."""

    def make(**changes) -> GSVAR:
        torch.manual_seed(0)
        network = GSVAR(micro(**changes))
        network.vqvae.add_bridge(identity=False)
        with torch.no_grad():
            for p in network.parameters():
                if p.dim() > 1:
                    p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
        return network.eval().requires_grad_(False)

    return make


@pytest.fixture
def fixer(model):
    """fixer(**options): a GSVARFixer with a micro model, without the bridge unless told."""
    return lambda sizes=None, **options: GSVARFixer(
        model(**(sizes or {})), **({"bridge": False} | options)
    )


@pytest.fixture
def weights(model, tmp_path):
    """A file of ours with a micro model."""
    path = tmp_path / "weights" / "micro.safetensors"
    loading.save(model(), path)
    return path
