# The refiner's diffusion: tables, samplers and losses.
import pytest
import torch

from models.gsvar import diffusion


def test_ten_steps_are_the_published_ones():
    process = diffusion.respaced_process(10)
    assert process.t.tolist() == [0, 111, 222, 333, 444, 555, 666, 777, 888, 999]
    published = [
        4.1e-5,
        0.034373,
        0.092722,
        0.153051,
        0.219339,
        0.297158,
        0.395736,
        0.532522,
        0.742368,
    ]
    torch.testing.assert_close(
        process.betas[:9], torch.tensor(published, dtype=torch.float64), rtol=0.02, atol=1e-6
    )


@pytest.mark.parametrize("steps", [0, 1, 1001])
def test_impossible_step_counts_are_refused(steps):
    with pytest.raises(ValueError, match="refiner_steps"):
        diffusion.respaced_process(steps)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "mean"])
def test_every_sampler_finds_a_known_answer(sampler):
    """With the exact noise estimate for one x_0, the chain ends there."""
    truth = torch.rand(5, 3, dtype=torch.float64) * 1.6 - 0.8
    process = diffusion.respaced_process(10)

    def denoise(x, i):
        bar = process.alphas_bar[i]
        return torch.cat(((x - bar.sqrt() * truth) / (1 - bar).sqrt(), torch.zeros_like(x)), -1)

    generator = torch.Generator().manual_seed(0)
    out = diffusion.sample(
        denoise,
        sampler=sampler,
        draw=lambda k: torch.randn(5, 3, generator=generator, dtype=torch.float64),
    )
    torch.testing.assert_close(out, truth, rtol=0, atol=1e-6)


def test_the_mean_does_not_depend_on_the_draws():
    weight = torch.randn(6, 3, dtype=torch.float64)
    results = [
        diffusion.sample(
            lambda x, i: x @ weight.T + 0.1,
            sampler="mean",
            draw=lambda k, s=seed: torch.full((4, 3), s, dtype=torch.float64),
        )
        for seed in (0.5, -2.0)
    ]
    assert torch.equal(*results)


def test_noising_keeps_its_precision_at_the_first_step():
    """1 - alphas_bar(0) is 4e-5: it must not be formed in float32."""
    full = diffusion.training_process()
    noise = torch.ones(1, 1)
    noised = full.noised(torch.zeros(1, 1), torch.tensor([0]), noise)
    expected = (1 - full.alphas_bar[0]).sqrt()
    assert abs(noised.item() / expected.item() - 1) < 1e-6


def test_the_bound_trains_the_variance_only():
    torch.manual_seed(0)
    output = torch.randn(6, 8, requires_grad=True)
    x0, noise, t = torch.rand(6, 4) - 0.5, torch.randn(6, 4), torch.tensor([0, 1, 5, 100, 500, 999])
    x = diffusion.training_process().noised(x0, t, noise)
    squared, bound = diffusion.losses(output, x0, x, t, noise)
    (grad,) = torch.autograd.grad(bound.sum(), output, retain_graph=True)
    assert not grad[:, :4].any()
    assert grad[:, 4:].any()
    (grad,) = torch.autograd.grad(squared.sum(), output)
    assert grad[:, :4].any()
    assert not grad[:, 4:].any()
