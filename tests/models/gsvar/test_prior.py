# The render prior: at first the render's own tokens, and the same in training as in decoding.
import torch

from models.gsvar import GSVAR
from models.gsvar.restorer import Restorer
from tests.models.conftest import micro


def spread_codes(model: GSVAR, images) -> None:
    """Codes that are vectors of these images, so that tokens differ."""
    grids = model.config.scales.grids
    for _ in range(3):
        vectors = model.vqvae.quantizer.quantize(model.vqvae.latent(images), grids).vectors
        order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))
        codes = model.vqvae.quantizer.codebook.weight
        codes.copy_(vectors[order.repeat(2)[: len(codes)]])


@torch.no_grad()
def test_a_new_model_says_the_render_s_own_tokens(images):
    torch.manual_seed(0)
    model = GSVAR(micro(render_prior=True, sampler="none")).eval().requires_grad_(False)
    render, reference = images(2, 3, 32, 32), images(2, 1, 3, 32, 32)
    spread_codes(model, render)
    own = model.vqvae.quantized(render, model.config.scales.grids)
    torch.testing.assert_close(Restorer(model).restore(render, reference), own)
    assert own.std() > 0.01


@torch.no_grad()
def test_decoding_is_the_teacher_forced_pass(build, images):
    model = build(render_prior=True, ref_attends="self").double()
    render, reference = images(2, 3, 32, 32).double(), images(2, 3, 32, 32).double()
    spread_codes(model, render)
    hidden, indices = [], []
    restorer = Restorer(model)
    logits = restorer.logits

    def observed(last, rest, scale):
        hidden.append(last)
        given = logits(last, rest, scale)
        indices.append(given.argmax(-1))
        return given

    restorer.logits = observed
    restorer.restore(render, reference[:, None], refiner="none")
    scales, quantizer = model.config.scales, model.vqvae.quantizer
    theirs = model.vqvae.tokens(reference, scales.grids).indices
    inputs = [quantizer.inputs(given, scales.grids) for given in (indices, theirs)]
    rest = model.rest(model.vqvae.latent(render), inputs[0], scales)
    whole = model(torch.stack((render, reference), 1), torch.stack(inputs, 1), rest=rest)
    torch.testing.assert_close(whole[:, 0], torch.cat(hidden, 1))
    logits = model.logits(whole, model.default_labels(2), rest, scales)
    assert torch.equal(logits[:, 0].argmax(-1), torch.cat(indices, 1))
    without = model.head(torch.zeros_like(whole[:, :1]))  # the prior has a say
    assert not torch.allclose(logits[:, :1], without)
