# The scale loop, guidance, and that codes are drawn with the probabilities they should have.
import pytest
import torch

from models.var.sampler import Sampling, State, decode, draw, guide, restrict
from models.var.scales import ScaleSchedule
from models.vqvae.config import VQVAEConfig
from models.vqvae.quantizer import Quantizer

CODES, SCALES = 7, ScaleSchedule.of("1_2_3")
DRAWS = 200_000


def logits(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, CODES, generator=generator, dtype=torch.float64)


def allowed(row: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """The probabilities that are left of one token's, by the definitions."""
    p = row.softmax(0)
    if top_k:
        p = torch.where(row >= row.sort(descending=True).values[top_k - 1], p, 0)
        p = p / p.sum()
    if top_p:
        nucleus, total = torch.zeros_like(p), 0.0
        for i in p.argsort(descending=True):
            if total >= top_p:
                break
            nucleus[i], total = p[i], total + p[i].item()
        p = nucleus / nucleus.sum()
    return p


CASES = [(0, 0.0), (3, 0.0), (0, 0.8), (5, 0.7), (CODES, 1.0), (2, 0.01), (900, 0.95)]


@pytest.mark.parametrize(("top_k", "top_p"), CASES)
def test_what_is_left_is_top_k_then_top_p(top_k, top_p):
    for row in logits(40):
        ours = restrict(row, top_k, top_p).softmax(-1)
        expected = allowed(row, min(top_k, CODES), top_p)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_ties_with_the_last_of_the_k_stay():
    row = torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0])
    assert restrict(row, 2).isfinite().tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize(("top_k", "top_p"), CASES)
def test_codes_come_with_their_probabilities(top_k, top_p, uniform):
    row, generator = logits(1), torch.Generator().manual_seed(1)
    uniforms = torch.rand(1, DRAWS, generator=generator, dtype=torch.float64) if uniform else None
    many = row.expand(1, DRAWS, CODES)
    drawn = draw(many, Sampling(top_k, top_p), generator=generator, uniforms=uniforms)
    expected = allowed(row[0], min(top_k, CODES), top_p)
    counts = torch.bincount(drawn[0], minlength=CODES).double() / DRAWS
    deviation = (expected * (1 - expected) / DRAWS).sqrt()
    assert ((counts - expected).abs() <= 5 * deviation).all()  # 0 exactly where nothing is left


def test_uniforms_are_the_inverse_of_the_cumulative_sum():
    row = logits(1)
    sums = row.softmax(-1)[0].cumsum(0)
    for u in (0.0, 0.2, 0.5, 0.93, 1 - 1e-12):
        expected = int((sums <= u).sum())
        got = draw(row[None], Sampling(0), uniforms=torch.full((1, 1), u, dtype=torch.float64))
        assert got.item() == expected
    last = torch.tensor([[[0.0, 1.0, -torch.inf]]])
    assert draw(last, Sampling(0), uniforms=torch.ones(1, 1)).item() == 1


def test_the_default_takes_the_likeliest_and_draws_nothing():
    rows = logits(2, 50)
    state = torch.get_rng_state()
    assert torch.equal(draw(rows), rows.argmax(-1))
    assert torch.equal(state, torch.get_rng_state())


def test_guidance_is_the_formula_and_grows_with_the_scales():
    with_, without = logits(2, 3), logits(2, 3, seed=1)
    torch.testing.assert_close(guide(with_, without, 1.5), 2.5 * with_ - 1.5 * without)
    sampling = Sampling(guidance=3.0)
    assert [sampling.guidance_at(s, 10) for s in (0, 3, 9)] == pytest.approx([0, 1, 3])
    assert sampling.guidance_at(0, 1) == 0


def quantizer() -> Quantizer:
    torch.manual_seed(0)
    return (
        Quantizer(VQVAEConfig(latent_channels=4, vocabulary=CODES)).double().requires_grad_(False)
    )


def test_the_loop_sums_the_scales_and_shows_them_to_the_network():
    own, states = quantizer(), []
    answers = [logits(2, n, seed=n) for n in SCALES.lengths]

    def predict(state: State) -> torch.Tensor:
        states.append(state)
        return answers[state.scale]

    f_hat, indices = decode(SCALES, own, predict)
    assert all(torch.equal(i, a.argmax(-1)) for i, a in zip(indices, answers, strict=True))
    sums = own.partial_sums(indices, SCALES.grids)
    torch.testing.assert_close(f_hat, sums[-1])
    assert states[0] == State(0, None, None)
    for scale in (1, 2):
        torch.testing.assert_close(states[scale].f_hat, sums[scale - 1])
        shrunk = own.shrink(sums[scale - 1], SCALES.grids[scale])
        torch.testing.assert_close(states[scale].map, shrunk)


def test_a_guided_loop_sees_the_batch_twice_and_weighs_it_scale_by_scale():
    own = quantizer()
    pairs = [(logits(2, n, seed=n), logits(2, n, seed=10 + n)) for n in SCALES.lengths]

    def predict(state: State) -> torch.Tensor:
        if state.map is not None:
            assert torch.equal(*state.map.chunk(2))
        return torch.cat(pairs[state.scale])

    _, indices = decode(SCALES, own, predict, sampling=Sampling(guidance=4.0))
    for (with_, without), weight, index in zip(pairs, (0, 2, 4), indices, strict=True):
        assert torch.equal(index, ((1 + weight) * with_ - weight * without).argmax(-1))


def test_the_generator_and_the_uniforms_decide():
    own, answers = quantizer(), [logits(2, n, seed=n) / 4 for n in SCALES.lengths]

    def run(**options):
        predict = lambda state: answers[state.scale]  # noqa: E731
        return torch.cat(decode(SCALES, own, predict, sampling=Sampling(0), **options)[1], 1)

    runs = [run(generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    given = [torch.rand(2, n, generator=torch.Generator().manual_seed(n)) for n in SCALES.lengths]
    expected = [draw(a, Sampling(0), uniforms=u) for a, u in zip(answers, given, strict=True)]
    assert torch.equal(run(uniforms=lambda scale, shape: given[scale]), torch.cat(expected, 1))


@pytest.mark.parametrize("wrong", [{"top_k": -1}, {"top_p": 1.5}, {"top_p": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
