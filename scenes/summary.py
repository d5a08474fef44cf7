# The facts of a scene, as JSON (summarize) or as text (describe).
from __future__ import annotations

from pathlib import Path

import torch

from scenes.outliers import drop_outliers
from scenes.scene import Scene


def summarize(scene: Scene) -> dict:
    """The JSON of `python -m scenes --json`; lengths in world units, angles in degrees.

    outliers: views far from all others; camera_spread: size of the other cameras' bounding box;
    view_angle: the largest angle between a viewing direction and the mean of all.
    """
    cameras = scene.cameras
    near = drop_outliers(cameras).positions
    looks = cameras.viewmats[:, 2, :3]
    mean_look = torch.nn.functional.normalize(looks.mean(0), dim=0)
    angle = torch.rad2deg(torch.acos((looks @ mean_look).clamp(-1, 1))).max()
    sizes: dict[tuple[int, int], int] = {}
    for size in cameras.sizes.tolist():
        sizes[tuple(size)] = sizes.get(tuple(size), 0) + 1
    intrinsics = torch.cat([cameras.Ks.reshape(-1, 9), cameras.sizes.float()], 1)
    fov = torch.rad2deg(2 * torch.atan(cameras.sizes[:, 0] / (2 * cameras.Ks[:, 0, 0])))
    train, test = scene.split.train, scene.split.test
    return {
        "path": str(scene.path),
        "kind": scene.kind,
        "views": len(scene),
        "cameras": len(torch.unique(intrinsics, dim=0)),
        "image_sizes": [
            {"width": width, "height": height, "views": count}
            for (width, height), count in sorted(sizes.items())
        ],
        "data_factor": scene.data_factor,
        "horizontal_fov": [round(fov.min().item(), 2), round(fov.max().item(), 2)],
        "points": len(scene.points),
        "camera_spread": (near.amax(0) - near.amin(0)).tolist(),
        "outliers": [scene.names[i] for i in scene.outliers],
        "view_angle": round(angle.item(), 2),
        "scale": scene.scale,
        "split": {
            "rule": scene.split.rule,
            "text": scene.split.text,
            "train": [scene.names[i] for i in train],
            "test": [scene.names[i] for i in test],
        },
        "transform": scene.transform.tolist(),
        "notes": list(scene.notes),
    }


def describe(scene: Scene, contact_sheet: Path) -> str:
    """The same as a few readable lines."""
    facts = summarize(scene)
    sizes = ", ".join(
        f"{size['width']}x{size['height']} ({size['views']})" for size in facts["image_sizes"]
    )
    low, high = facts["horizontal_fov"]
    fov = f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
    spread = " x ".join(f"{length:.3g}" for length in facts["camera_spread"])
    lines = {
        "capture": f"{facts['path']} ({facts['kind']})",
        "views": f"{facts['views']} by {facts['cameras']} camera{'s' * (facts['cameras'] != 1)}, "
        f"{fov} degrees wide",
        "image sizes": f"{sizes}, data factor {facts['data_factor']}",
        "points": f"{facts['points']:,}",
        "spread": f"cameras within {spread} units, looking up to {facts['view_angle']:.0f} degrees "
        "away from their mean direction",
        "split": facts["split"]["text"],
        "contact sheet": str(contact_sheet),
    }
    width = max(map(len, lines)) + 2
    text = [f"{key:<{width}}{value}" for key, value in lines.items()]
    return "\n".join(text + [f"{'note':<{width}}{note}" for note in facts["notes"]])
