# The quantizer in training: straight-through, losses, corrupted contexts; the discriminator.
import torch

from models.vqvae.config import VQVAEConfig
from models.vqvae.discriminator import Discriminator, hinge
from models.vqvae.quantizer import Quantizer

GRIDS = ((1, 1), (2, 2), (4, 4))


def quantizer():
    torch.manual_seed(0)
    config = VQVAEConfig(width=8, multipliers=(1, 2), groups=4, latent_channels=6, vocabulary=32)
    return Quantizer(config).double()


def latent():
    return torch.randn(2, 6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_quantized_latent_is_the_tokens_sum_and_its_gradient_passes_through():
    module, z = quantizer(), latent().requires_grad_()
    quantized = module.quantize(z, GRIDS)
    tokens = module.encode(z, GRIDS)
    for ours, theirs in zip(quantized.indices, tokens.indices, strict=True):
        assert torch.equal(ours, theirs)
    expected = module.partial_sums(tokens.indices, GRIDS)[-1]
    torch.testing.assert_close(quantized.f_hat, expected)
    weight = torch.randn_like(z)
    (gradient,) = torch.autograd.grad((quantized.f_hat * weight).sum(), z)
    torch.testing.assert_close(gradient, weight)


def test_each_loss_trains_its_own_side():
    module, z = quantizer(), latent().requires_grad_()
    quantized = module.quantize(z, GRIDS)
    sums = module.partial_sums(quantized.indices, GRIDS)
    expected = sum((f - z).square().mean() for f in sums) / len(GRIDS)
    torch.testing.assert_close(quantized.codebook_loss, expected)
    torch.testing.assert_close(quantized.commitment_loss, expected)
    parameters = [module.codebook.weight, *module.phis.parameters()]
    quantized.codebook_loss.backward(retain_graph=True)
    assert z.grad is None
    assert module.codebook.weight.grad.abs().sum() > 0
    for parameter in parameters:
        parameter.grad = None
    quantized.commitment_loss.backward()
    assert z.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in parameters)


def test_later_scales_make_up_for_replaced_codes():
    module, z = quantizer(), latent()

    def other(scale, indices):
        return (indices + 1) % 32 if scale == 0 else indices

    plain, tokens = module.encode(z, GRIDS), module.encode(z, GRIDS, other)
    assert torch.equal(tokens.indices[0], plain.indices[0])  # the target stays the right code
    assert torch.equal(tokens.context[0], (plain.indices[0] + 1) % 32)
    # what the second scale is asked for is what is left after the code that was really given
    rest = z - module.spread(module.codebook(tokens.context[0]), 0, GRIDS)
    assert torch.equal(tokens.indices[1], module.nearest(module.shrink(rest, (2, 2))))
    # and all of it, with the residual, is the latent again
    f = module.partial_sums(tokens.context[:2], GRIDS)[-1]
    last = tokens.residual.permute(0, 2, 1).reshape(z.shape)
    torch.testing.assert_close(f + last, z)


def test_neighbours_are_the_nearest_other_codes():
    module = quantizer()
    near = module.neighbours(3)
    codes = module.codebook.weight.detach()
    for i in (0, 7, 31):
        order = (codes - codes[i]).square().sum(1).argsort()[1:4]
        assert set(near[i].tolist()) == set(order.tolist())


def test_a_discriminator_learns_to_tell_noise_from_flat_pictures():
    torch.manual_seed(0)
    judge = Discriminator(width=16, groups=4)
    optimiser = torch.optim.Adam(judge.parameters(), 1e-3)
    flat, noise = torch.zeros(4, 3, 32, 32), torch.randn(4, 3, 32, 32)
    first = hinge(judge(flat), judge(noise)).item()
    for _ in range(30):
        loss = hinge(judge(flat), judge(noise))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 * first
