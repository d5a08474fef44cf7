# Holes of renders without alpha: large black regions, only where they are asked for.
import torch

from fixers.holes import contradicts, find_holes, guess_alpha


def render(height=60, width=80):
    """A bright picture with a hole, a few black pixels and a dark corner that is not black."""
    image = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.3
    image[10:30, 20:50] = 0
    image[50, ::7] = 0
    image[40:, 60:] = torch.rand(height - 40, width - 60, 3) * 0.02 + 0.01
    return image


def test_a_picture_without_alpha_is_opaque():
    assert torch.equal(guess_alpha(render(), "none"), torch.ones(60, 80))


def test_large_black_regions_are_holes():
    expected = torch.ones(60, 80)
    expected[10:30, 20:50] = 0
    assert torch.equal(guess_alpha(render(), "auto"), expected)
    assert torch.equal(find_holes(torch.zeros(20, 30, 3)), torch.zeros(20, 30))
    assert torch.equal(find_holes(torch.ones(20, 30, 3)), torch.ones(20, 30))


def test_pictures_of_holes_contradict_opacity():
    image = render()
    alpha = find_holes(image)
    assert not contradicts(image, alpha)
    assert contradicts(image, 1 - alpha)
    assert not contradicts(image, torch.ones(60, 80))  # a dark scene
    assert not contradicts(torch.ones(60, 80, 3), alpha)
