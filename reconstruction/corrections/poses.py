# Poses that are optimised with the splats: gsplat's `CameraOptModule`, whose state it can load.
from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scenes.cameras import Cameras
from scenes.scene import Scene


class PoseDeltas(nn.Module):
    """A small rigid motion of each of `count` cameras, in its own frame.

    A row of `embeds` is a shift and the change of a rotation in 6D (arXiv 1812.07035).
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.embeds = nn.Embedding(count, 9)
        nn.init.zeros_(self.embeds.weight)
        self.register_buffer("identity", torch.tensor([1.0, 0, 0, 0, 1, 0]))

    def forward(self, cameras: Cameras, rows: Tensor) -> Cameras:
        """Cameras [C] moved by these rows [C]; in the graph."""
        delta = self.embeds(rows)
        a, b = (delta[:, 3:] + self.identity).split(3, dim=1)
        x = F.normalize(a, dim=1)
        y = F.normalize(b - (x * b).sum(1, keepdim=True) * x, dim=1)
        R = torch.stack([x, y, torch.linalg.cross(x, y)], dim=1)
        # camtoworld' = camtoworld [R t; 0 1], hence viewmat' = [R^T  -R^T t; 0 1] viewmat
        back = R.transpose(1, 2)
        moved = torch.cat([back, -back @ delta[:, :3, None]], dim=2) @ cameras.viewmats
        return replace(cameras, viewmats=torch.cat([moved, cameras.viewmats[:, 3:]], dim=1))


@torch.no_grad()
def add_noise(scene: Scene, deviation: float, seed: int) -> Scene:
    """The scene with wrong poses of the training views: normal noise of the deltas' 9 values."""
    deltas = PoseDeltas(len(scene.split.train))
    generator = torch.Generator().manual_seed(seed)
    deltas.embeds.weight.normal_(0, deviation, generator=generator)
    return move_training_views(scene, deltas)


@torch.no_grad()
def move_training_views(scene: Scene, deltas: PoseDeltas) -> Scene:
    """The scene with its training views moved by the deltas, one for each."""
    train = list(scene.split.train)
    rows = torch.arange(len(train), device=deltas.identity.device)
    moved = deltas(scene.cameras[train].to(deltas.identity.device), rows)
    viewmats = scene.cameras.viewmats.clone()
    viewmats[train] = moved.viewmats.to(viewmats)
    return replace(scene, cameras=replace(scene.cameras, viewmats=viewmats))
