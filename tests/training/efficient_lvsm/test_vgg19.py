# Weights of VGG19 from each kind of file that people have; made ones, since none can be shipped.
import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch import nn

from training.efficient_lvsm.losses import VGG19Perceptual
from training.efficient_lvsm.vgg19 import SCALE, load_vgg19


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    network = VGG19Perceptual()
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    return network


def test_matconvnet_and_checkpoints_are_taken_as_they_are(weights, tmp_path):
    entries = []
    for layer in weights.features:
        entry = {"name": f"layer{len(entries)}", "type": "relu"}
        if isinstance(layer, nn.Conv2d):
            cell = np.empty((1, 2), dtype=object)
            cell[0, 0] = layer.weight.permute(2, 3, 1, 0).numpy()
            cell[0, 1] = layer.bias[:, None].numpy()
            entry |= {"type": "conv", "weights": cell}
        entries.append(entry)
    layers = np.empty((1, len(entries)), dtype=object)
    layers[0, :] = entries
    savemat(tmp_path / "vgg.mat", {"layers": layers})
    state = weights.state_dict()
    inside = {f"loss_computer.perceptual_loss_module.vgg.{n}": t for n, t in state.items()}
    torch.save({"model": inside}, tmp_path / "training.pt")
    for name in ("vgg.mat", "training.pt"):
        loaded = load_vgg19(tmp_path / name).state_dict()
        assert all(torch.equal(loaded[n], t) for n, t in state.items()), name


def test_torchvisions_see_what_they_were_trained_on(weights, tmp_path):
    """Features are those of pictures over ImageNet's deviation, times one scale."""
    torch.save(weights.state_dict(), tmp_path / "vgg19-dcbb9e9d.pth")
    network = load_vgg19(tmp_path / "vgg19-dcbb9e9d.pth")
    images = torch.rand(1, 3, 32, 32)
    x = (images - network.mean / 255) / torch.tensor((0.229, 0.224, 0.225))[:, None, None]
    expected = SCALE * weights.features(x)
    assert torch.allclose(network.extract(images)[-1], expected, rtol=1e-3, atol=1e-3 * SCALE)


def test_wrong_files_are_named(tmp_path):
    torch.save({"features.0.weight": torch.zeros(4, 3, 3, 3)}, tmp_path / "other.pth")
    savemat(tmp_path / "other.mat", {"x": np.zeros(3)})
    for name, message in (
        ("none.pth", "none.pth does not exist"),
        ("other.pth", "other.pth holds no features of VGG19: features.0.weight"),
        ("other.mat", "other.mat is no network of MatConvNet"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            load_vgg19(tmp_path / name)
