# Weights of VGG19 for the perceptual loss, from the files that people have.
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.checkpoints.io import read
from training.efficient_lvsm.losses import VGG19Perceptual

STD = (0.229, 0.224, 0.225)  # of the pictures that torchvision's weights were trained on
SCALE = 255 * 0.226  # one of torchvision's units in pixel values, about


def load_vgg19(path: Path) -> VGG19Perceptual:
    """The network with the weights of a file: MatConvNet's imagenet-vgg-verydeep-19.mat, the same
    weights in a training checkpoint of LVSM (vgg.features.N), or torchvision's vgg19.

    torchvision's expect pictures over their deviation: the first layer is scaled for pixel values,
    and all biases so that features are of the size that the loss's factors were made for.
    ValueError or FileNotFoundError names the file."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist (--vgg19)")
    network = VGG19Perceptual()
    content = read_mat(path) if Path(path).suffix == ".mat" else read_tensors(path)
    state = network.state_dict()
    for name, tensor in state.items():
        if name not in content or content[name].shape != tensor.shape:
            raise ValueError(
                f"{path} holds no features of VGG19: {name} {list(tensor.shape)} is not in it "
                "(--vgg19)"
            )
    network.load_state_dict({name: content[name] for name in state})
    return network


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Features of a checkpoint of tensors, for pixel values."""
    content = read(path)[0]
    inner = {n.rpartition("vgg.")[2]: t for n, t in content.items() if "vgg.features." in n}
    if inner:
        return inner
    features = {n: t.clone() for n, t in content.items() if n.startswith("features.")}
    if "features.0.weight" in features:
        features["features.0.weight"] *= SCALE / (255 * torch.tensor(STD))[:, None, None]
    for name, tensor in features.items():
        if name.endswith("bias"):
            tensor *= SCALE
    return features


def read_mat(path: Path) -> dict[str, Tensor]:
    """Features of MatConvNet's file. ValueError for another one."""
    from scipy.io import loadmat

    try:
        layers = loadmat(path, simplify_cells=True)["layers"]
        convolutions = {
            str(layer["name"]): (
                layer["weights"] if "weights" in layer else (layer["filters"], layer["biases"])
            )
            for layer in layers
            if layer["type"] == "conv"
        }
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is no network of MatConvNet ({error}) (--vgg19)") from None
    names = [
        f"features.{number}"
        for number, layer in enumerate(VGG19Perceptual().features)
        if isinstance(layer, torch.nn.Conv2d)
    ]
    state = {}
    for name, (weight, bias) in zip(names, convolutions.values(), strict=False):
        kernel = np.asarray(weight, np.float32).transpose(3, 2, 0, 1)  # from HWIO
        state[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        state[f"{name}.bias"] = torch.from_numpy(np.asarray(bias, np.float32).reshape(-1))
    return state
