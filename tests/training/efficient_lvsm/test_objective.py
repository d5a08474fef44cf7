# The sum of losses, and names of REPA's layers; the values themselves are compared in
# tests/models/efficient_lvsm.
import pytest
import torch

from models.efficient_lvsm import EfficientLVSM, tiny
from training.efficient_lvsm.losses import VGG19Perceptual, measure_similarity
from training.efficient_lvsm.objective import Objective, Repa, parse_pairs


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("8-2", {"input": {8: (2,)}, "target": {8: (2,)}}),
        ("8-3t", {"target": {8: (3,)}}),
        ("8-23i", {"input": {8: (2, 3)}}),
        ("48-23", {"input": {4: (2,), 8: (3,)}, "target": {4: (2,), 8: (3,)}}),
    ],
)
def test_names_of_layers(name, pairs):
    assert parse_pairs(name, 3) == pairs


@pytest.mark.parametrize("name", ["8", "8-", "8-e2", "x-2", "48-2", "8-2it", "8-4", "8-0"])
def test_wrong_names_are_refused(name):
    with pytest.raises(ValueError, match="REPA's layers"):
        parse_pairs(name, 3)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)

    def noise(views, channels):
        return torch.rand(2, views, channels, 16, 16, generator=generator)

    return 2 * noise(2, 3) - 1, noise(2, 6), noise(3, 6), noise(3, 3)


def test_the_sum_has_the_weights_and_reaches_all_parts(inputs):
    torch.manual_seed(0)
    model = EfficientLVSM(tiny())
    repa = Repa(parse_pairs("8-2", 2), 64, 24, hidden=16)
    teachers = {"input": {8: torch.randn(4, 4, 24)}, "target": {8: torch.randn(6, 4, 24)}}
    objective = Objective(VGG19Perceptual(), mse_weight=2.0, repa_weight=0.25)
    losses = objective(model, *inputs, repa, teachers)
    expected = 2 * losses["mse"] + 0.5 * losses["perceptual"] + 0.25 * losses["repa"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    losses["loss"].backward()
    assert all(p.grad is not None for p in [*model.parameters(), *repa.parameters()])
    assert not any(p.requires_grad for p in objective.perceptual.parameters())
    alone = Objective(None)(model, *inputs)
    assert alone["loss"].item() == pytest.approx(alone["mse"].item())
    assert alone["psnr"].item() == pytest.approx(-10 * alone["mse"].log10().item())


def test_an_unknown_similarity_is_refused():
    with pytest.raises(ValueError, match="none of sl1, l2, cos"):
        measure_similarity(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), "cosine")


def test_equal_pictures_cost_nothing():
    image = torch.rand(1, 3, 32, 32)
    network = VGG19Perceptual()
    assert network(image, image).item() == 0
    assert network(image, 1 - image).item() > 0
