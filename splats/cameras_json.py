# The cameras.json in a result folder: ours ({"viewmats", "Ks", "sizes"}) and Inria's (a list of
# {"position", "rotation", "fx", "fy", "width", "height"}, camera to world).
from __future__ import annotations

import json
from pathlib import Path

import torch

from scenes.cameras import Cameras


def read(path: Path | str) -> Cameras:
    """The cameras of a run, in the world of its splats.

    ValueError, naming the file, for anything but one of the two forms with finite numbers.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cameras = _from_list(content) if isinstance(content, list) else _from_tables(content)
    except (ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path} is not a cameras.json of a result folder ({error!r})") from error
    finite = cameras.viewmats.isfinite().all() and cameras.Ks.isfinite().all()
    if not finite or len(cameras) == 0 or (cameras.sizes < 1).any():
        raise ValueError(f"{path} has no cameras, or some with NaN or infinite values")
    return cameras


def _from_tables(content: dict) -> Cameras:
    return Cameras(
        torch.tensor(content["viewmats"], dtype=torch.float32),
        torch.tensor(content["Ks"], dtype=torch.float32),
        torch.tensor(content["sizes"], dtype=torch.int64),
    )


def _from_list(content: list[dict]) -> Cameras:
    viewmats = torch.eye(4).repeat(len(content), 1, 1)
    Ks = torch.eye(3).repeat(len(content), 1, 1)
    for viewmat, K, camera in zip(viewmats, Ks, content, strict=True):
        R = torch.tensor(camera["rotation"], dtype=torch.float64).reshape(3, 3).T
        viewmat[:3, :3] = R
        viewmat[:3, 3] = -R @ torch.tensor(camera["position"], dtype=torch.float64).reshape(3)
        K[0, 0], K[1, 1] = camera["fx"], camera["fy"]
        K[0, 2], K[1, 2] = camera["width"] / 2, camera["height"] / 2
    sizes = [[int(camera["width"]), int(camera["height"])] for camera in content]
    return Cameras(viewmats, Ks, torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2))
