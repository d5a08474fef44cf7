# Cameras in a file, for views of a scene: our cameras.json, or a transforms.json.
from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from scenes.cameras import Cameras
from scenes.scene import Scene

FAR = 4.0  # times the capture's own extent: farther away is outside the scene


def read_trajectory(path: Path, scene: Scene, flag: str = "--trajectory") -> Cameras:
    """The cameras in a file: our cameras.json, or a transforms.json (OpenGL axes), both in the
    capture's own world. ValueError or FileNotFoundError names the file, the `flag` and
    what is wrong."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file ({flag})") from None
    except (ValueError, RecursionError, OSError):
        raise ValueError(f"{path} is not JSON ({flag})") from None
    try:
        if "viewmats" in content:
            viewmats = torch.tensor(content["viewmats"], dtype=torch.float64)
            transform = torch.tensor(
                content.get("transform", torch.eye(4).tolist()), dtype=torch.float64
            )
            own = Cameras(
                viewmats, torch.tensor(content["Ks"]).float(), torch.tensor(content["sizes"]).long()
            )
            poses = torch.linalg.inv(transform) @ own.camtoworlds
        else:
            poses = torch.tensor(
                [f["transform_matrix"] for f in content["frames"]], dtype=torch.float64
            )
            if poses.shape[1:] == (3, 4):
                poses = torch.cat(
                    (poses, poses.new_tensor([0, 0, 0, 1]).expand(len(poses), 1, 4)), 1
                )
            poses = poses * poses.new_tensor([1, -1, -1, 1])  # OpenGL to OpenCV
            first = scene.cameras[scene.split.train[0]]
            own = Cameras(
                poses.float(), first.Ks.expand(len(poses), 3, 3), first.sizes.expand(len(poses), 2)
            )
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError):
        raise ValueError(
            f"{path} holds no cameras: give a cameras.json of a result, or a transforms.json"
        ) from None
    if len(own) and not (own.sizes > 0).all():
        raise ValueError(f"{path} has cameras without pixels ({flag})")
    if not len(own) or not poses.isfinite().all():
        raise ValueError(f"{path} holds no cameras, or poses that are not finite ({flag})")
    return Cameras(world_to_camera(scene.transform @ poses), own.Ks, own.sizes)


def world_to_camera(poses: Tensor) -> Tensor:
    """[N,4,4] float32 of camera-to-world poses whose rotations may carry a scale."""
    turn = poses[:, :3, :3]
    poses = poses.clone()
    poses[:, :3, :3] = turn / torch.linalg.det(turn).abs()[:, None, None] ** (1 / 3)
    return torch.linalg.inv(poses).float()


def check_inside(cameras: Cameras, scene: Scene, path: Path) -> None:
    """ValueError if a camera of the file lies far outside of the scene."""
    train = scene.cameras[scene.drop_outliers(scene.split.train)].positions.double()
    middle = train.mean(0)
    reach = FAR * max((train - middle).norm(dim=1).max().item(), 1e-9)
    away = (cameras.positions.double() - middle).norm(dim=1)
    if len(train) > 1 and (away > reach).any():
        worst = int(away.argmax())
        raise ValueError(
            f"{path}: camera {worst} lies {away[worst] / reach * FAR:.1f} times as far from the "
            "scene's middle as any photo: is the trajectory in the capture's own world?"
        )
