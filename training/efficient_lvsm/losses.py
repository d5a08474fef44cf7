# What LVSM and Efficient-LVSM learn by: MSE, features of VGG19, and tokens of a frozen teacher
# (REPA, arXiv 2410.06940).
from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (64, 64, "pool", 128, 128, "pool", *(256,) * 4, "pool", *(512,) * 4, "pool", *(512,) * 2)
TAPS = (3, 8, 13, 22, 31)  # layers after which features are compared: relu1_2, 2_2, 3_2, 4_2, 5_2
FACTORS = (1.0, 1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
MEAN = (123.68, 116.779, 103.939)
Similarity = Literal["sl1", "l2", "cos"]


class VGG19Perceptual(nn.Module):
    """Mean absolute differences of pictures and of VGG19's features, weighed as in "Crowdsampling
    the Plenoptic Function" (arXiv 2007.15194). Poolings average instead of taking the largest.

    features: as in torchvision's `vgg19().features`, up to relu5_2. Frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for channels in CHANNELS:
            if channels == "pool":
                layers.append(nn.AvgPool2d(2))
            else:
                layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU(inplace=True)]
                width = channels
        self.features = nn.Sequential(*layers).requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)

    def forward(self, prediction: Tensor, truth: Tensor) -> Tensor:
        """The loss of images [B,3,H,W] in [0,1]."""
        errors = self.errors(prediction, truth)
        return sum(f * e for f, e in zip(FACTORS, errors, strict=True)) / 255

    def errors(self, prediction: Tensor, truth: Tensor) -> list[Tensor]:
        """Mean absolute differences of the pixels (0 to 255) and of five layers' features."""
        pairs = zip(self.extract(prediction), self.extract(truth), strict=True)
        return [(a - b).abs().mean() for a, b in pairs]

    def extract(self, images: Tensor) -> list[Tensor]:
        """The pixels without ImageNet's mean, and the features at TAPS."""
        x = 255 * images - self.mean
        features = [x]
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in TAPS:
                features.append(x.clone())  # the next layer but one works in place
        return features


class Projector(nn.Sequential):
    """Tokens of a student [...,C] as a teacher's [...,C']."""

    def __init__(self, width: int, teacher: int, hidden: int = 2048) -> None:
        super().__init__(
            nn.Linear(width, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, teacher),
        )


def measure_similarity(student: Tensor, teacher: Tensor, kind: Similarity) -> Tensor:
    """REPA's loss for each view, [V], of tokens [V,P,C]: smooth L1, squared difference, or the
    negative cosine, mean over tokens. ValueError for another kind."""
    if kind == "sl1":
        return F.smooth_l1_loss(student, teacher, reduction="none").mean((1, 2))
    if kind == "l2":
        return (student - teacher).square().mean((1, 2))
    if kind == "cos":
        return -F.cosine_similarity(student, teacher, dim=-1).mean(1)
    raise ValueError(f"REPA's loss {kind!r} is none of sl1, l2, cos")


def average_views(losses: list[Tensor]) -> Tensor:
    """The mean over all views of all pairs of layers, [V] each."""
    return torch.cat(losses).mean()
