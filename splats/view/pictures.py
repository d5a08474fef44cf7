# What the viewer shows: pictures of splats as bytes, the first view, and a browser's camera.
from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from scipy.spatial.transform import Rotation
from torch import Tensor

from scenes.cameras import Cameras
from scenes.outliers import drop_outliers
from splats import paths
from splats.gaussians import Splats
from splats.rasterize import rasterize

MODES = ("colour", "depth", "alpha")
DEPTH_COLORS = torch.from_numpy(colormaps["turbo"](np.linspace(1, 0, 256))[:, :3]).float()
CONFIDENCE_COLORS = torch.from_numpy(colormaps["RdYlGn"](np.linspace(0, 1, 256))[:, :3]).float()
STILL_SECONDS = 0.5  # time for a picture at rest, which decides its resolution at the start
SMALLEST, LARGEST = 160, 1920  # longer side of a picture, in pixels


@dataclass(frozen=True)
class InitialView:
    """The view of a new browser: all [3], in the world; fov is vertical, in radians."""

    position: Tensor
    target: Tensor
    up: Tensor
    fov: float


@dataclass(frozen=True)
class Settings:
    """The choices of the panel; background is RGB in [0, 1]."""

    mode: str = "colour"
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sh_degree: int = 3
    antialiased: bool = False


@torch.no_grad()
def render_picture(
    splats: Splats, camera: Cameras, settings: Settings, confidence: Tensor | None = None
) -> tuple[np.ndarray, int]:
    """One view as uint8 [H,W,3] and the number of Gaussians in it.

    The mode "confidence" needs the confidence [N] in [0,1]; without it, colour is shown.
    """
    device = splats["means"].device
    background = torch.tensor(settings.background, device=device)
    channels = {"sh_degree": min(settings.sh_degree, splats.sh_degree), "background": background}
    if settings.mode == "confidence" and confidence is not None:
        values = CONFIDENCE_COLORS.to(device)[(confidence.to(device) * 255).long()]
        channels = {"signals": values, "signal_background": background, "colors": False}
    render = rasterize(splats, camera.to(device), antialiased=settings.antialiased, **channels)
    alphas = render.alphas[0].cpu()
    if settings.mode == "alpha":
        image = alphas[..., None].expand(-1, -1, 3)
    elif settings.mode == "depth":
        image = _depth_colors(render.depths[0].cpu(), alphas)
    else:
        image = (render.signals if render.colors is None else render.colors)[0].cpu()
    in_view = int((render.info["radii"][0] > 0).all(-1).sum())
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).numpy(), in_view


def _depth_colors(depths: Tensor, alphas: Tensor) -> Tensor:
    """Turbo colours [H,W,3], near red and far blue, over this picture's range of inverse depth."""
    hit = alphas > 0.5
    if not hit.any():
        return torch.zeros(*depths.shape, 3)
    inverse = 1 / depths.clamp(min=1e-6)
    near, far = np.quantile(inverse[hit].numpy(), [0.98, 0.02])
    t = (1 - (inverse - far) / max(near - far, 1e-9)).clamp(0, 1)
    return DEPTH_COLORS[(t * 255).long()] * alphas[..., None]


def choose_initial_view(splats: Splats, cameras: Cameras | None = None) -> InitialView:
    """The first camera's view; without cameras, one of the bulk of the Gaussians from above."""
    return _view_of_splats(splats) if cameras is None else _view_of_camera(cameras)


def _view_of_camera(cameras: Cameras) -> InitialView:
    cameras = drop_outliers(cameras)
    pose = cameras.camtoworlds[0].cpu()
    position, forward = pose[:3, 3], pose[:3, 2]
    distance = (paths.estimate_focus(cameras) - position) @ forward
    spread = (cameras.positions.cpu() - position).norm(dim=1).max()
    distance = torch.maximum(distance, 0.1 * spread).clamp(min=1e-3)
    height = cameras.sizes[0, 1].item()
    fov = 2 * np.arctan(height / 2 / cameras.Ks[0, 1, 1].item())
    return InitialView(position, position + distance * forward, paths.estimate_up(cameras), fov)


def _view_of_splats(splats: Splats) -> InitialView:
    """Stray Gaussians are ignored. Up is -y (usual with COLMAP) or +z (aligned worlds), whichever
    is nearer to the axis along which the splats are flattest."""
    means = splats["means"].detach().cpu()
    means = means[:: max(1, len(means) // 100_000)]
    center = means.median(dim=0).values
    distances = (means - center).norm(dim=1)
    extent = distances.quantile(0.7).clamp(min=1e-3)
    bulk = (means - center)[distances <= distances.quantile(0.7)]
    flattest = torch.linalg.eigh(bulk.T @ bulk).eigenvectors[:, 0]
    minus_y, plus_z = torch.tensor([0.0, -1, 0]), torch.tensor([0.0, 0, 1])
    up = minus_y if (flattest @ minus_y).abs() >= (flattest @ plus_z).abs() else plus_z
    back = plus_z if up is minus_y else -minus_y
    return InitialView(center - extent * (2 * back - 0.7 * up), center, up, np.radians(50))


def make_browser_camera(
    wxyz: np.ndarray, position: np.ndarray, fov: float, aspect: float, width: int
) -> Cameras:
    """The camera of a browser window whose longer side has `width` pixels.

    wxyz [4] and position [3] are camera to world in OpenCV axes; fov is vertical, in radians.
    """
    shorter = max(1, round(width * min(aspect, 1 / aspect)))
    w, h = (width, shorter) if aspect >= 1 else (shorter, width)
    focal = h / 2 / np.tan(fov / 2)
    R = Rotation.from_quat(np.roll(wxyz, -1)).as_matrix().T
    viewmat = np.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = R, -R @ position
    K = np.array([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]])
    return Cameras(
        torch.from_numpy(viewmat).float()[None],
        torch.from_numpy(K).float()[None],
        torch.tensor([[w, h]]),
    )


def measure_width(splats: Splats, start: InitialView) -> int:
    """The longer side in pixels of a 4:3 picture that takes STILL_SECONDS on this machine."""
    pose = paths.look_at(
        start.position.double().numpy()[None], start.target.double().numpy(), start.up.numpy()
    )[0]
    wxyz = Rotation.from_matrix(pose[:3, :3]).as_quat()[[3, 0, 1, 2]]
    settings = Settings(sh_degree=splats.sh_degree)
    seconds = {}
    for width in (160, 160, 160, 480, 480):  # the first one also compiles or warms up
        camera = make_browser_camera(wxyz, pose[:3, 3], start.fov, 4 / 3, width)
        began = time.monotonic()
        render_picture(splats, camera, settings)
        seconds[width] = min(seconds.get(width, np.inf), time.monotonic() - began)
    per_pixel = max(seconds[480] - seconds[160], 1e-4) / (480**2 - 160**2)  # of a square
    fixed = max(0.0, seconds[160] - 160**2 * per_pixel)
    pixels = max(STILL_SECONDS - fixed, 0.05) / per_pixel
    return int(np.clip(pixels**0.5, 240, 1280)) // 8 * 8
