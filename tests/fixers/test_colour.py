# Colour corrections: statistics go where they should, and nothing else does.
import torch

from fixers.colour import adain, correct, low


def test_adain_moves_mean_and_deviation():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 30, 40, 3, generator=generator)
    moved = adain(a, b * 0.5 + 0.1)
    expected = (b * 0.5 + 0.1).flatten(1, 2)
    torch.testing.assert_close(moved.flatten(1, 2).mean(1), expected.mean(1), rtol=0, atol=1e-4)
    torch.testing.assert_close(moved.flatten(1, 2).std(1), expected.std(1), rtol=0, atol=1e-4)


def test_the_wavelet_takes_the_colour_and_leaves_the_detail():
    generator = torch.Generator().manual_seed(0)
    renders = torch.rand(1, 64, 64, 3, generator=generator) * 0.5 + 0.2
    tinted = renders + torch.tensor([0.1, 0.0, -0.1])
    torch.testing.assert_close(correct(tinted, renders, None, "render-wavelet"), renders)
    assert torch.equal(correct(tinted, renders, None, "none"), tinted)


def test_low_frequencies_of_a_constant_are_the_constant():
    flat = torch.full((1, 5, 7, 3), 0.3)
    torch.testing.assert_close(low(flat), flat)


def test_the_reference_is_the_source_only_when_asked_for_and_there():
    generator = torch.Generator().manual_seed(0)
    fixed, renders = torch.rand(2, 1, 20, 20, 3, generator=generator)
    guide = (torch.rand(1, 1, 20, 20, 3, generator=generator) * 0.2).clamp(0, 1)
    assert correct(fixed, renders, guide, "reference").mean() < 0.2
    assert torch.equal(correct(fixed, renders, None, "reference"), fixed)


def test_one_pixel_does_not_break_the_statistics():
    one = torch.rand(1, 1, 1, 3)
    for kind in ("render-adain", "render-wavelet"):
        assert correct(one, one, None, kind).isfinite().all()
