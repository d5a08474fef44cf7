# A procedural capture on disk, as a COLMAP scene: images/frame_00001.png ..., sparse/0.
from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from runtime.files import make_writable_folder, replace_folder
from runtime.progress import ProgressBar
from scenes.capture import FEWEST_VIEWS
from scenes.formats import colmap
from scenes.loading import SHORTEST_SIDE
from scenes.procedural.scene import check_size, generate


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
    progress: bool = True,
) -> Path:
    """Render the scene of this seed and write photos and COLMAP model to `folder`, atomically.

    kind and path: None leaves the choice to the seed. Returns the folder. Raises ValueError for a
    folder that is not empty without `overwrite`, and for invalid kinds, paths and numbers.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the scene")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"{folder} is not empty; name a new folder, or overwrite it (--overwrite)")
    # What `scenes.load` would refuse is not written.
    least = {
        "views": (n_views, FEWEST_VIEWS),
        "width": (width, SHORTEST_SIDE),
        "height": (height, SHORTEST_SIDE),
        "points": (points, 0),
    }
    for name, (value, fewest) in least.items():
        if value < fewest:
            raise ValueError(f"--{name} {value}: give at least {fewest}")
    check_size(width, height)
    make_writable_folder(folder.absolute().parent)
    scene = generate(seed, kind)
    cameras = scene.capture(n_views, width, height, path)
    with tempfile.TemporaryDirectory(
        dir=folder.absolute().parent, prefix=f".{folder.name}-"
    ) as temporary:
        staged = Path(temporary) / "scene"
        (staged / "images").mkdir(parents=True)
        names = [f"frame_{k + 1:05d}.png" for k in range(n_views)]
        for k, name in enumerate(
            ProgressBar(names, desc=f"{scene.kind} {seed}", unit="photo", disable=not progress)
        ):
            image = scene.render(cameras[k])[0][0]
            Image.fromarray((image * 255).round().byte().numpy()).save(staged / "images" / name)
        colmap.write(staged, cameras, names, *scene.points(cameras, points))
        return replace_folder(staged, folder)
