# A procedural capture on disk, as a COLMAP scene: images/frame_00001.png ..., sparse/0.
from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from scenes import colmap
from scenes.files import writable_folder
from scenes.procedural.scene import generate


def write(
    folder: Path | str,
    seed: int,
    *,
    kind: str | None = None,
    n_views: int = 60,
    width: int = 512,
    height: int = 384,
    path: str | None = None,
    points: int = 10000,
    overwrite: bool = False,
) -> Path:
    """Render the place of this seed and write photos and model to `folder`, whole or not at all.

    kind and path: None leaves the choice to the seed. Returns the folder. ValueError for an
    existing non-empty folder without `overwrite` and for wrong kinds, paths and numbers.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the scene")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} is not empty; name a new folder, or overwrite it (--overwrite)")
    if min(n_views, width, height) < 1 or points < 0:
        raise ValueError(
            f"views and sizes must be at least 1 and points at least 0, "
            f"got {n_views} views of {width}x{height} and {points} points"
        )
    writable_folder(folder.absolute().parent)
    scene = generate(seed, kind)
    cameras = scene.capture(n_views, width, height, path)
    with tempfile.TemporaryDirectory(
        dir=folder.absolute().parent, prefix=f".{folder.name}-"
    ) as temporary:
        staged = Path(temporary) / "scene"
        (staged / "images").mkdir(parents=True)
        names = [f"frame_{k + 1:05d}.png" for k in range(n_views)]
        for k, name in enumerate(tqdm(names, desc=f"{scene.kind} {seed}", unit="photo")):
            image = scene.render(cameras[k])[0][0]
            Image.fromarray((image * 255).round().byte().numpy()).save(staged / "images" / name)
        colmap.write(staged, cameras, names, *scene.points(cameras, points))
        if folder.exists():
            shutil.rmtree(folder)
        staged.replace(folder)
    return folder
