# Appearance embeddings (NeRF in the Wild, arXiv 2008.02268) with the settings of gsplat's
# `AppearanceOptModule`: a photo's vector, a Gaussian's features and the direction give its colour.
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splats.gaussians import Gaussians
from splats.harmonics import evaluate_bases, evaluate_colors

FEATURES = 32
WIDTH = 64
NAME = "features"  # of the signal of the Gaussians


class Appearance(nn.Module):
    """Factors of the Gaussians' colours in each of `count` photos.

    Unlike gsplat's, the network changes the colours of the harmonics, by the difference that an
    embedding makes from the mean one: without a photo the splats look as they are, and any program
    shows them so.
    """

    def __init__(self, count: int, embed_dim: int, sh_degree: int) -> None:
        super().__init__()
        self.sh_degree = sh_degree
        self.embeds = nn.Embedding(count, embed_dim)
        self.color_head = nn.Sequential(
            nn.Linear(embed_dim + FEATURES + (sh_degree + 1) ** 2, WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(WIDTH, WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(WIDTH, 3),
        )
        nn.init.zeros_(self.color_head[-1].weight)
        nn.init.zeros_(self.color_head[-1].bias)

    def forward(self, gaussians: Gaussians, positions: Tensor, rows: Tensor, degree: int) -> Tensor:
        """Colours [C, N, 3] seen from positions [C, 3] in the photos of these rows [C]."""
        directions = gaussians.means - positions[:, None]
        plain = evaluate_colors(gaussians.colors, directions, degree)
        values = evaluate_bases(F.normalize(directions, dim=-1), degree)
        missing = (self.sh_degree + 1) ** 2 - values.shape[-1]
        inputs = torch.cat([gaussians.signals[NAME].expand(len(rows), -1, -1), values], dim=-1)
        inputs = F.pad(inputs, (0, missing))
        first, *others = self.color_head
        # the first layer takes its two inputs apart, so that embeddings are not repeated N times
        of_embeds, of_inputs = first.weight.split([self.embeds.embedding_dim, inputs.shape[-1]], 1)
        shared = F.linear(inputs, of_inputs, first.bias)
        own = F.linear(self.embeds(rows), of_embeds)[:, None]
        mean = F.linear(self.embeds.weight.mean(0), of_embeds)
        rest = nn.Sequential(*others)
        return plain * (rest(shared + own) - rest(shared + mean)).exp()


def make_features(count: int, generator: torch.Generator) -> Tensor:
    """Features [N, 32] to start from, as in gsplat."""
    return torch.rand(count, FEATURES, generator=generator)
