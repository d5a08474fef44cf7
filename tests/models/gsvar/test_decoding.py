# Cached decoding equals the masked teacher-forced pass, batches equal single samples, and the
# forced tokens are the references'.
import pytest
import torch

from models.gsvar import GSVAR
from models.gsvar.restorer import Restorer


def teacher_forced(model: GSVAR, render, references, indices):
    """The last block's output of the masked pass over the tokens that decoding chose."""
    grids = model.config.scales.grids
    quantizer = model.vqvae.quantizer
    inputs = [quantizer.inputs(indices, grids)]
    for r in range(references.shape[1]):
        own = model.vqvae.tokens(references[:, r], grids).indices
        inputs.append(quantizer.inputs(own, grids))
    views = torch.cat((render[:, None], references), 1)
    return model(views, torch.stack(inputs, 1))


def decode(model: GSVAR, render, references, **options):
    """f_hat, and the render's output [B,L,C] and token choices at each scale."""
    hidden, indices = [], []
    restorer = Restorer(model)

    def observe(scale, h):
        hidden.append(h[:, 0, -1:] if scale == 0 else h[:, 0])
        indices.append(restorer.logits(hidden[-1]).argmax(-1))

    f_hat = restorer.restore(render, references, observer=observe, **options)
    return f_hat, torch.cat(hidden, 1), indices


@pytest.mark.parametrize("views", [0, 1, 3])
@pytest.mark.parametrize("attends", ["all", "self"])
@pytest.mark.parametrize(
    ("schedule", "mixing"), [("1_2_3_4", None), ("1_2_3x2_4x3", (1,)), ("1_1x2_2x4_4x8", (0,))]
)
def test_cached_decoding_is_the_masked_pass(build, images, views, attends, schedule, mixing):
    model = build(patch_nums=schedule, mixing_blocks=mixing, ref_attends=attends, depth=3).double()
    height, width = model.config.image_size
    render = images(2, 3, height, width).double()
    references = images(2, views, 3, height, width).double()
    _, hidden, indices = decode(model, render, references, refiner="none")
    expected = teacher_forced(model, render, references, indices)[:, 0]
    error = (hidden - expected).abs().max() / expected.std()
    assert error < 1e-10


def test_the_tokens_are_the_likeliest_of_the_masked_pass(build, images):
    model = build().double()
    render, references = images(1, 3, 32, 32).double(), images(1, 1, 3, 32, 32).double()
    _, _, indices = decode(model, render, references, refiner="none")
    hidden = teacher_forced(model, render, references, indices)
    logits = model.logits(hidden, model.default_labels(2))[:, 0]
    assert torch.equal(logits.argmax(-1), torch.cat(indices, 1))


@pytest.mark.parametrize("attends", ["all", "self"])
def test_a_batch_equals_its_samples_one_by_one(build, images, attends):
    model = build(ref_attends=attends).double()
    render, references = images(3, 3, 32, 32).double(), images(3, 2, 3, 32, 32).double()
    together = Restorer(model).restore(render, references, refiner="mean")
    for i in range(3):
        alone = Restorer(model).restore(render[i : i + 1], references[i : i + 1], refiner="mean")
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-10)


def test_the_reference_changes_the_result_and_none_means_none(build, images):
    model = build()
    render, references = images(2, 3, 32, 32), images(2, 1, 3, 32, 32)
    none = Restorer(model).restore(render, refiner="none")
    assert torch.equal(none, Restorer(model).restore(render, references[:, :0], refiner="none"))
    assert not torch.equal(none, Restorer(model).restore(render, references, refiner="none"))


def test_without_reference_tokens_are_predicted_not_copied_from_the_render(build, images):
    """The original overwrote every predicted token by the render's own where no reference was."""
    model = build()
    render = images(1, 3, 32, 32)
    _, _, indices = decode(model, render, None, refiner="none")
    own = model.vqvae.tokens(render, model.config.scales.grids).indices
    assert not torch.equal(torch.cat(indices, 1), torch.cat(own, 1))


def test_a_photo_is_encoded_once_for_many_renders(build, images):
    model = build(ref_attends="self", mixing_blocks=(1,)).double()
    renders, photo = images(3, 3, 32, 32).double(), images(1, 2, 3, 32, 32).double()
    memory = Restorer(model).encode_references(photo)
    many = Restorer(model).restore(renders, memory, refiner="mean")
    direct = Restorer(model).restore(renders, photo.expand(3, -1, -1, -1, -1), refiner="mean")
    torch.testing.assert_close(many, direct, rtol=0, atol=1e-10)


def test_memory_is_refused_where_references_see_the_render(build, images):
    with pytest.raises(ValueError, match="ref_attends"):
        Restorer(build()).encode_references(images(1, 1, 3, 32, 32))


def test_folded_modulations_follow_the_weights(build, images):
    """A restorer made after training has no stale tables."""
    model = build()
    render = images(1, 3, 32, 32)
    before = Restorer(model).restore(render, refiner="none")
    model.train()
    with torch.no_grad():
        model.label.weight.mul_(-2)
    model.eval()
    assert not torch.equal(before, Restorer(model).restore(render, refiner="none"))


def test_the_attention_temperature_is_clamped(build, images):
    model = build().double()
    render = images(1, 3, 32, 32).double()
    results = []
    for value in (4.7, 40.0):  # both beyond ln 100
        with torch.no_grad():
            for block in model.transformer.blocks:
                block.attention.log_temperature.fill_(value)
        results.append(decode(model, render, None, refiner="none")[1])
    assert torch.equal(*results)


def test_draws_come_from_the_generator(build, images):
    model = build()
    render = images(1, 3, 32, 32)
    runs = [
        Restorer(model).restore(render, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_other_shapes_are_taken_within_reason(build, images):
    model = build(patch_nums="1_2_4_8", ref_attends="self")
    assert model.accepts(5, 10)
    assert not model.accepts(3, 8)
    assert not model.accepts(8, 17)
    f_hat = Restorer(model).restore(images(1, 3, 40, 80), images(1, 1, 3, 40, 80))
    assert f_hat.shape == (1, 8, 5, 10)
    assert model.decode(f_hat).shape == (1, 3, 40, 80)
    with pytest.raises(ValueError, match="multiples of 8"):
        Restorer(model).restore(images(1, 3, 41, 80))


def test_half_precision_stays_close(build, images):
    render, reference = images(1, 3, 32, 32), images(1, 1, 3, 32, 32)
    exact = decode(build(), render, reference, refiner="none")[1]
    half = decode(build().set_precision(torch.bfloat16), render, reference, refiner="none")[1]
    assert half.dtype == torch.bfloat16
    assert (half[:, 0].float() - exact[:, 0]).abs().max() < 0.1 * exact.std()


def test_gradients_reach_every_part_in_teacher_forcing(build, images):
    model = build(ref_attends="self").train().requires_grad_(True)
    render, references = images(2, 3, 32, 32), images(2, 1, 3, 32, 32)
    with torch.no_grad():
        tokens = model.vqvae.tokens(render, model.config.scales.grids)
    hidden = teacher_forced(model, render, references, tokens.indices)
    labels = model.default_labels(2)
    condition = model.refiner_condition(hidden[:, 0, -16:], tokens.indices[-1])
    t = torch.arange(condition[..., 0].numel()) * 10
    out = model.refiner(torch.randn(t.numel(), 8), t, condition.flatten(0, 1))
    (model.logits(hidden, labels).square().mean() + out.square().mean()).backward()
    silent = [
        name
        for name, p in model.named_parameters()
        if not name.startswith("vqvae.") and (p.grad is None or not p.grad.any())
    ]
    assert silent == []
