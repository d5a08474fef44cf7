# What projection and blending need of numba, compiled on tiny inputs.
import torch

from runtime.kernels import WarmUp
from scenes.cameras import Cameras
from splats.cpu.blend import INLINE, blend_backward, blend_forward
from splats.cpu.project import project_backward, project_forward
from splats.cpu.rasterize import blend, project
from splats.cpu.tiles import bin_tiles, sort_by_depth, sum_pairs

COUNT, SIZE = 4, 16


def compile_projection() -> None:
    """One Gaussian's parameters, forward and backward."""
    shapes = (3,), (3,), (4,), (), (1, 3), (15, 3)
    splats = tuple(torch.ones(COUNT, *shape, requires_grad=True) for shape in shapes)
    K = torch.tensor([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
    camera = Cameras(torch.eye(4)[None], K[None], torch.tensor([[SIZE, SIZE]]))
    outputs = project(splats, camera, 3, near=0.01, far=1e10, eps2d=0.3, antialiased=False)
    sum(output.sum() for output in outputs[:4]).backward()


def compile_blending() -> None:
    """Binning and blending of a few Gaussians, forward and backward."""
    means2d = torch.full((1, COUNT, 2), SIZE / 2, requires_grad=True)
    conics = torch.tensor([1.0, 0, 1]).expand(1, COUNT, 3).clone().requires_grad_()
    opacities = torch.full((1, COUNT), 0.5, requires_grad=True)
    colors = torch.ones(1, COUNT, INLINE, requires_grad=True)
    image, alpha = blend(
        means2d,
        conics,
        opacities,
        colors,
        torch.zeros(INLINE),
        torch.ones(1, COUNT),
        torch.full((1, COUNT, 2), 3.0),
        torch.full((1, COUNT, 2), 3, dtype=torch.int32),
        width=SIZE,
        height=SIZE,
    )
    (image.sum() + alpha.sum()).backward()


PROJECTION = WarmUp(compile_projection, (project_forward, project_backward))
BLENDING = WarmUp(
    compile_blending, (sort_by_depth, bin_tiles, blend_forward, blend_backward, sum_pairs)
)
