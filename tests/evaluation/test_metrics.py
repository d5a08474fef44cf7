# Metrics against independent float64 formulas, LPIPS with and without its weights, strict JSON.
import numpy as np
import pytest
import torch

from evaluation.backbones.features import load_features
from evaluation.metrics import PSNR_CAP, Metrics, average


def pair(height=40, width=52, views=None, noise=0.1, seed=0):
    """A smooth truth and a noisy prediction that leaves [0, 1] in places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 10
    truth = 0.5 + 0.5 * np.stack([np.sin(x + y), np.cos(x), np.sin(y)], -1)
    shape = truth.shape if views is None else (views, *truth.shape)
    truth = np.broadcast_to(truth, shape)
    prediction = truth + noise * rng.standard_normal(shape)
    return torch.tensor(prediction, dtype=torch.float32), torch.tensor(truth, dtype=torch.float32)


def psnr_float64(prediction, truth):
    difference = np.clip(prediction.numpy().astype(np.float64), 0, 1) - truth.numpy()
    return 10 * np.log10(1 / np.mean(difference**2))


def ssim_float64(prediction, truth):
    """Wang et al. 2004: 11x11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, mean over pixels.

    Borders are mirrored, so that every pixel has a window.
    """
    axis = np.arange(-5, 6)
    g = np.exp(-(axis**2) / (2 * 1.5**2))
    window = np.outer(g, g) / np.outer(g, g).sum()

    def blur(image):
        image = np.pad(image, ((5, 5), (5, 5), (0, 0)), mode="reflect")
        patches = np.lib.stride_tricks.sliding_window_view(image, (11, 11), axis=(0, 1))
        return np.einsum("hwcij,ij->hwc", patches, window)

    x = np.clip(prediction.numpy().astype(np.float64), 0, 1)
    y = truth.numpy().astype(np.float64)
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return np.mean((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])
def test_psnr_and_ssim_equal_the_formulas(noise):
    prediction, truth = pair(noise=noise)
    result = Metrics(None)(prediction, truth)
    assert result["psnr"] == pytest.approx(psnr_float64(prediction, truth), abs=1e-5)
    assert result["ssim"] == pytest.approx(ssim_float64(prediction, truth), abs=2e-5)


def test_several_views_are_measured_one_by_one():
    prediction, truth = pair(views=3)
    metrics = Metrics(None)
    results = metrics(prediction, truth)
    assert len(results) == 3
    assert results[2] == metrics(prediction[2], truth[2])
    assert results[0] != results[1]


def test_identical_images_stay_finite():
    _, truth = pair()
    result = Metrics(None)(truth, truth)
    assert result["psnr"] == PSNR_CAP
    assert result["ssim"] == pytest.approx(1)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda p, t: (p[:-1], t), "one size"),
        (lambda p, t: (p[:10], t[:10]), "at least 11"),
        (lambda p, t: (p[..., :2], t[..., :2]), r"\[H, W, 3\]"),
        (lambda p, t: (p, (t * 255).to(torch.uint8)), "not floats"),
        (lambda p, t: (p, t * 255), r"outside \[0, 1\]"),
        (lambda p, t: (p, t * float("nan")), r"outside \[0, 1\]"),
    ],
)
def test_bad_input_gets_a_sentence(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        Metrics(None)(*change(*pair()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_finite_predictions_name_their_view(bad):
    prediction, truth = pair(views=3)
    prediction[1, 5, 5:7, 0] = bad
    with pytest.raises(ValueError, match="view 1 has 2 pixels"):
        Metrics(None)(prediction, truth)


def test_lpips_without_weights_is_none_with_a_reason(no_weights):
    metrics = Metrics("vgg")
    assert "vgg16-397923af.pth" in metrics.lpips_reason
    assert "not available" in metrics.protocol
    result = metrics(*pair())
    assert result["lpips"] is None
    assert result["psnr"] > 0


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_ranges_are_those_of_the_protocol(backbones_folder, net):
    # lpips on our way of loading against torchmetrics' own implementation of both conventions
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    metrics = Metrics(net, backbones=backbones_folder)
    assert metrics.lpips_reason is None
    prediction, truth = pair(64, 64)
    reference = _NoTrainLpips(net=net, pnet_rand=True)
    features = load_features(net, backbones_folder)
    for name, part in reference.net.named_children():
        if name.startswith("slice"):
            part.load_state_dict({key: features[f"features.{key}"] for key in part.state_dict()})
    images = [image.clamp(0, 1).movedim(-1, 0)[None] for image in (prediction, truth)]
    expected = reference(*images, normalize=net == "alex").item()
    assert metrics(prediction, truth)["lpips"] == pytest.approx(expected, rel=1e-3)
    assert metrics(truth, truth)["lpips"] == pytest.approx(0, abs=1e-6)


def test_both_nets_are_measured_side_by_side(backbones_folder):
    images = pair(64, 64)
    metrics = Metrics("both", backbones=backbones_folder)
    assert metrics.names == ["psnr", "ssim", "lpips", "lpips_vgg"]
    both = metrics(*images)
    for name, net in (("lpips", "alex"), ("lpips_vgg", "vgg")):
        assert both[name] == Metrics(net, backbones=backbones_folder)(*images)["lpips"]
    assert "AlexNet" in metrics.protocol and "VGG16" in metrics.protocol


def test_one_of_two_nets_may_lack_its_weights(backbones_folder, no_weights):
    no_weights.mkdir(parents=True)
    weights = "alexnet_features.safetensors"
    (no_weights / weights).symlink_to(backbones_folder / weights)
    metrics = Metrics("both", backbones=no_weights)
    assert metrics.names == ["psnr", "ssim", "lpips"]
    result = metrics(*pair())
    assert result["lpips"] > 0 and result["lpips_vgg"] is None
    assert "vgg16" in metrics.lpips_reason and "VGG16" in metrics.protocol.split("LPIPS")[2]


def test_an_unknown_net_is_refused():
    with pytest.raises(ValueError, match="alex, vgg, both or None"):
        Metrics("squeeze")


def test_protocol_is_one_line_with_the_resolution():
    line = Metrics(None).protocol.format(resolution="497x331")
    assert "\n" not in line
    assert line.endswith("resolution 497x331")


def test_mean_is_none_where_a_view_has_none():
    views = [{"psnr": 20.0, "lpips": 0.1}, {"psnr": 30.0, "lpips": None}]
    assert average(views) == {"psnr": 25.0, "lpips": None}
    assert average([]) == {}
    with pytest.raises(ValueError, match="different keys"):
        average([{"psnr": 1.0}, {"ssim": 1.0}])
