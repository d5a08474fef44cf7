# A GS-VAR small enough to build anywhere, with every part of the real one.
import pytest
import torch

from models.gsvar import GSVAR, GSVARConfig


def micro(**changes) -> GSVARConfig:
    """Sizes for tests: 32x32 pixels, four scales."""
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


def randomised(model: GSVAR, seed: int = 0) -> GSVAR:
    """The model with weights that leave nothing at zero, so that every part has a say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
            if p.dim() > 1:
                p.div_(p[0].numel() ** 0.5)
            else:
                p.mul_(0.1).add_(1.0 if name.endswith("weight") else 0.0)
    return model


@pytest.fixture
def build():
    """build(**changes) -> a random micro model in eval mode; bridge=True adds a bridge."""

    def make(bridge: bool = False, seed: int = 0, **changes) -> GSVAR:
        model = GSVAR(micro(**changes))
        if bridge:
            model.vqvae.add_bridge(identity=False)
        return randomised(model, seed).eval().requires_grad_(False)

    return make


@pytest.fixture
def images():
    """images(*shape) -> random images in [-1,1]."""
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.rand(*shape, generator=generator) * 2 - 1
