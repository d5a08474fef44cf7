# Image losses: hand-made values, independent float64 references, gradients, no silent substitute.
import pytest
import torch
from torch import nn

from evaluation.backbones.network import load_lpips
from evaluation.metrics import Metrics
from training.losses import (
    ImageObjective,
    Perceptual,
    l1,
    l2,
    load_perceptual,
    ssim_loss,
)

lpips = pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def perceptual():
    """A Perceptual on a random VGG16 (with LPIPS's real heads)."""
    torch.manual_seed(0)
    return Perceptual(lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False))


@pytest.fixture(scope="module")
def perceptual64(perceptual):
    """The same in float64, with biases, which a new VGG16 has none of."""
    torch.manual_seed(1)
    network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    network.load_state_dict(perceptual.network.state_dict())
    for module in network.net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.bias, std=0.05)
    return Perceptual(network).double()


def images(batch=2, height=24, width=32, dtype=torch.float64, seed=0):
    """A smooth truth and a noisy prediction, around mid-grey."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    phase = torch.rand(batch, 3, 1, 1, generator=generator) * 6
    truth = 0.8 * torch.sin((x + 2 * y) / 7 + phase)
    prediction = (truth + 0.15 * torch.randn(truth.shape, generator=generator)).clamp(-1, 1)
    return prediction.to(dtype), truth.to(dtype)


def assert_gradient(loss, prediction, directions=4):
    """The gradient along random directions against central differences; float64."""
    leaf = prediction.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    assert gradient.abs().max() > 0
    generator = torch.Generator().manual_seed(5)
    for _ in range(directions):
        way = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
        step = 1e-6 * way
        slope = (loss(prediction + step) - loss(prediction - step)) / 2e-6
        assert (gradient * way).sum().item() == pytest.approx(slope.item(), rel=2e-4, abs=1e-9)


# pixels --------------------------------------------------------------------------------------


def test_l1_and_l2_of_hand_made_images():
    truth = torch.zeros(1, 3, 2, 2)
    prediction = truth.clone()
    prediction[0, 0, 0, 0], prediction[0, 2, 1, 1] = 1.0, -0.5
    assert l1(prediction, truth).item() == pytest.approx(1.5 / 12)
    assert l2(prediction, truth).item() == pytest.approx(1.25 / 12)


def test_ssim_loss_is_the_evaluations_ssim():
    prediction, truth = images(1, dtype=torch.float32)
    unit = [((image[0] + 1) / 2).movedim(0, -1) for image in (prediction, truth)]
    expected = 1 - Metrics(None)(*unit)["ssim"]
    assert ssim_loss(prediction, truth).item() == pytest.approx(expected, abs=1e-5)
    assert ssim_loss(truth, truth).item() == pytest.approx(0, abs=1e-5)


def test_ssim_loss_does_not_take_close_greys_for_opposites():
    grey = torch.full((1, 3, 16, 16), 0.05)
    assert ssim_loss(grey, -grey).item() < 0.01


def test_ssim_loss_in_float32_equals_float64():
    prediction, truth = images(2, 40, 48)
    exact = ssim_loss(prediction, truth)
    single = ssim_loss(prediction.float(), truth.float())
    assert single.item() == pytest.approx(exact.item(), abs=1e-5)


@pytest.mark.parametrize("loss", [l1, l2, ssim_loss])
def test_pixel_losses_have_right_gradients(loss):
    prediction, truth = images(1, 12, 13)
    assert_gradient(lambda image: loss(image, truth), prediction)


@pytest.mark.parametrize("loss", [l1, l2, ssim_loss])
def test_pixel_losses_are_float32_under_autocast_and_of_bfloat16(loss):
    prediction, truth = images(1, dtype=torch.float32)
    plain = loss(prediction, truth)
    with torch.autocast("cpu", torch.bfloat16):
        cast = loss(prediction, truth)
    assert cast.dtype == torch.float32
    assert cast.item() == pytest.approx(plain.item(), rel=1e-6)
    half = loss(prediction.bfloat16(), truth.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(plain.item(), rel=0.05)


@pytest.mark.parametrize("loss", [l1, l2, ssim_loss])
def test_images_that_are_no_pair_are_refused(loss):
    image = torch.zeros(2, 3, 16, 16)
    for other in (image[:1], image[:, :1], image[..., :8], image[0]):
        with pytest.raises(ValueError, match=r"\[2, 3, 16, 16\]"):
            loss(image, other)


def test_too_small_images_are_refused(perceptual):
    image = torch.zeros(1, 3, 20, 10)
    with pytest.raises(ValueError, match="10x20 pixels; this loss needs at least 11"):
        ssim_loss(image, image)
    for loss in (perceptual, perceptual.gram):
        with pytest.raises(ValueError, match="at least 16"):
            loss(image, image)


# VGG16 ---------------------------------------------------------------------------------------


def gram_reference(perceptual, prediction, truth):
    """Over torchvision's own list of layers and ImageNet's statistics of [0, 1] images."""
    slices = [getattr(perceptual.network.net, f"slice{i}") for i in range(1, 6)]
    layers = [module for part in slices for module in part]
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=prediction.dtype)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=prediction.dtype)[:, None, None]
    weights = {3: 1 / 2.6, 8: 1 / 4.8, 15: 1 / 3.7, 22: 1 / 5.6, 29: 10 / 1.5}
    total, ours, theirs = 0, *((image / 2 + 0.5 - mean) / std for image in (prediction, truth))
    for i, layer in enumerate(layers):
        ours, theirs = layer(ours), layer(theirs)
        if i in weights:
            batch, d, h, w = ours.shape
            grams = [f.reshape(batch * d, h * w) for f in (ours, theirs)]
            a, b = (torch.einsum("in,jn->ij", g, g) for g in grams)
            total = total + weights[i] * ((a - b) ** 2).mean() / (d * h * w)
    return total


def test_gram_equals_an_independent_one(perceptual64):
    prediction, truth = images()
    expected = gram_reference(perceptual64, prediction, truth)
    assert expected > 0
    assert perceptual64.gram(prediction, truth).item() == pytest.approx(expected.item(), rel=1e-6)
    assert perceptual64.gram(truth, truth).item() == 0


def test_gram_window_is_of_both_images_drawn_by_the_generator_or_the_middle(perceptual64):
    prediction, truth = images(1, 20, 40)

    def windowed(left):
        part = (..., slice(left, left + 20))
        return gram_reference(perceptual64, prediction[part], truth[part]).item()

    middle = perceptual64.gram(prediction, truth, crop=20).item()
    assert middle == pytest.approx(windowed(10), rel=1e-6)
    possible = [windowed(left) for left in range(21)]
    drawn = set()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        value = perceptual64.gram(prediction, truth, generator, crop=20).item()
        assert any(value == pytest.approx(other, rel=1e-6) for other in possible)
        again = torch.Generator().manual_seed(seed)
        assert perceptual64.gram(prediction, truth, again, crop=20).item() == value
        drawn.add(value)
    assert len(drawn) > 1


def test_gram_and_lpips_have_right_gradients(perceptual64):
    prediction, truth = images(1, 16, 18)
    assert_gradient(lambda image: perceptual64.gram(image, truth), prediction, 2)
    assert_gradient(lambda image: perceptual64(image, truth), prediction, 2)


def test_lpips_takes_images_as_they_are_and_averages_the_batch(perceptual):
    prediction, truth = images(dtype=torch.float32)
    unit = ((image + 1) / 2 for image in (prediction, truth))
    expected = perceptual.network(*unit, normalize=True).flatten()  # of images in [0, 1]
    assert expected.min() > 0
    assert perceptual(prediction, truth).item() == pytest.approx(expected.mean().item(), rel=1e-4)
    assert perceptual(truth, truth).item() == 0


def test_lpips_has_a_gradient_where_all_features_are_zero(perceptual):
    prediction, truth = images(1, dtype=torch.float32)
    last = perceptual.network.net.slice5[-2]
    bias = last.bias.clone()
    try:
        last.bias.fill_(-1e6)
        leaf = prediction.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(perceptual(leaf, truth), leaf)
    finally:
        last.bias.copy_(bias)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_perceptual_is_frozen_without_dropout_and_in_float32(perceptual):
    prediction, truth = images(1, dtype=torch.float32)
    assert not any(p.requires_grad for p in perceptual.parameters())
    nn.ModuleList([perceptual]).train()  # as a trained model that holds it would be
    assert not any(module.training for module in perceptual.modules())
    plain = perceptual(prediction, truth), perceptual.gram(prediction, truth)
    with torch.autocast("cpu", torch.bfloat16):
        cast = perceptual(prediction, truth), perceptual.gram(prediction, truth)
    assert [value.dtype for value in cast] == [torch.float32] * 2
    assert [v.item() for v in cast] == pytest.approx([v.item() for v in plain], rel=1e-5)


def test_no_weights_give_a_reason(no_weights):
    perceptual, reason = load_perceptual("cpu")
    assert perceptual is None
    assert reason.startswith("LPIPS is not available: vgg16-397923af.pth could not be downloaded")


def test_real_weights_give_lpips_and_a_gram_loss_that_descend(backbones_folder):
    perceptual, reason = load_perceptual("cpu", backbones_folder)
    assert reason is None
    prediction, truth = images(1, 48, 48, dtype=torch.float32)
    expected = load_lpips("vgg", backbones_folder)[0](prediction, truth).item()
    assert perceptual(prediction, truth).item() == pytest.approx(expected, rel=1e-5)
    objective = ImageObjective(perceptual, gram=True)
    leaf = prediction.clone().requires_grad_()
    first = objective(leaf, truth)
    optimizer = torch.optim.Adam([leaf], 0.02)
    for _ in range(12):
        optimizer.zero_grad()
        objective(leaf, truth)["loss"].backward()
        optimizer.step()
    last = objective(leaf, truth)
    assert last["lpips"] < 0.6 * first["lpips"] and last["gram"] < 0.3 * first["gram"]


# the objective -------------------------------------------------------------------------------


def test_objective_with_vgg_is_l2_and_lpips_and_gram(perceptual):
    prediction, truth = images(dtype=torch.float32)
    prediction.requires_grad_()
    parts = ImageObjective(perceptual)(prediction, truth)
    assert list(parts) == ["loss", "l2", "lpips"]
    assert parts["loss"].item() == pytest.approx((parts["l2"] + parts["lpips"]).item())
    assert parts["l2"].item() == pytest.approx(l2(prediction, truth).item())

    objective = ImageObjective(perceptual, gram=True)
    assert "gram" not in objective(prediction, truth, with_gram=False)
    parts = objective(prediction, truth, torch.Generator().manual_seed(0))
    whole = parts["l2"] + parts["lpips"] + 0.5 * parts["gram"]
    assert parts["gram"] > 0
    assert parts["loss"].item() == pytest.approx(whole.item(), rel=1e-6)
    assert [name for name, part in parts.items() if part.requires_grad] == ["loss"]
    parts["loss"].backward()
    assert prediction.grad.abs().max() > 0
    assert objective.describe() == "Images are trained by L2 + LPIPS + 0.5 Gram (VGG16)."


def test_objective_without_vgg_is_another_one_and_says_so():
    prediction, truth = images(dtype=torch.float32)
    objective = ImageObjective(None, reason="LPIPS is not available: no network.")
    parts = objective(prediction, truth)
    assert list(parts) == ["loss", "l1", "ssim_loss"]
    assert parts["loss"].item() == pytest.approx((parts["l1"] + parts["ssim_loss"]).item())
    assert objective.describe() == (
        "Images are trained by L1 + (1 - SSIM), not by L2 + LPIPS. "
        "LPIPS is not available: no network."
    )
    assert "there is no VGG16" in ImageObjective(None).describe()

    objective = ImageObjective(None, pixel_loss="l2")
    parts = objective(prediction, truth)
    assert list(parts) == ["loss", "l2", "ssim_loss"]
    whole = 4 * (prediction - truth).square().mean() + ssim_loss(prediction, truth)
    assert parts["loss"].item() == pytest.approx(whole.item())
    assert objective.describe().startswith("Images are trained by 4 L2 + (1 - SSIM), not by")


def test_gram_without_vgg_is_refused():
    with pytest.raises(ValueError, match=r"--use_gram_loss needs VGG16. No weights."):
        ImageObjective(None, gram=True, reason="No weights.")


def test_holder_of_an_objective_does_not_save_vgg(perceptual):
    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.objective = ImageObjective(perceptual)
            self.held = (perceptual,)

    assert list(Stage().state_dict()) == ["layer.weight", "layer.bias"]
