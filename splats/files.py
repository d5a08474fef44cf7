# Splats on disk: a file in one of the formats of splats.formats.registry, or a result folder with
# such files, its cameras and its settings.
from __future__ import annotations

import glob
import json
import re
from pathlib import Path

import torch
from torch import Tensor

from scenes.cameras import Cameras
from splats.formats import checkpoint
from splats.formats.content import check_content
from splats.formats.registry import FORMATS, find_format, list_written
from splats.gaussians import Gaussians, Splats


def load(path: Path | str) -> Splats:
    """Splats from a file in one of FORMATS, or the newest ones in a result folder.

    The parts that several GPUs saved (`ckpt_*_rank0.pt`, `_rank1.pt`, ...) are joined.
    FileNotFoundError or ValueError names the file and what is wrong.
    """
    return join([_load_file(file) for file in find_files(path)])


def join(parts: list[Splats]) -> Splats:
    """All Gaussians of the parts, in order."""
    if len(parts) == 1:
        return parts[0]
    return Splats.from_gaussians(Gaussians.concatenate([part.gaussians for part in parts]))


def find_ranks(file: Path) -> list[Path]:
    """A checkpoint's file (`ckpt_6999_rank0.pt`), and those of the same step by other ranks beside
    it, in order; other files alone."""
    match = re.fullmatch(r"(.*_rank)(\d+)(\.\w+)", file.name)
    if match is None or not file.is_file():
        return [file]
    ranks = {file}
    for other in file.parent.glob(f"{glob.escape(match[1])}*{match[3]}"):
        if re.fullmatch(r"\d+", other.name[len(match[1]) : -len(match[3])]):
            ranks.add(other)
    return sorted(ranks, key=lambda path: int(path.stem[len(match[1]) :]))


def read_confidence(path: Path | str) -> Tensor | None:
    """How well photos support each of the splats that `load` reads there: [N] in [0,1].

    None where the files are no checkpoints or do not say. Errors as in `load`.
    """
    parts = []
    for file in find_files(path):
        if not is_checkpoint(file):
            return None
        content = checkpoint.load(file)
        values, count = content.get("confidence"), checkpoint.parse(file, content)[0].count
        if not isinstance(values, Tensor) or values.shape != (count,):
            return None
        parts.append(values.float().clamp(0, 1))
    return torch.cat(parts)


def read_antialiased(path: Path | str) -> bool:
    """Whether a result folder's cfg.yml, ours or gsplat's, says that its splats are antialiased.

    False without such a file.
    """
    settings = Path(path) / "cfg.yml"
    if not settings.is_file():
        return False
    text = settings.read_text(errors="replace")  # gsplat's has Python objects: no plain YAML
    return re.search(r"^antialiased: true\s*$", text, re.MULTILINE) is not None


def save(path: Path | str, splats: Splats, *, step: int = 0) -> None:
    """Write splats in the format of the name's ending, a .pt with its `step`; ValueError for
    another ending, and for values that the format cannot hold."""
    path = Path(path)
    check_written(path)
    find_format(path).write(path, splats, step)


def check_written(path: Path) -> None:
    """ValueError unless the name's ending is that of a format that can be written."""
    format = find_format(path)
    if path.name.lower() in FORMATS and path.name.startswith("."):
        raise ValueError(f"{path} is only an ending; give a name before it, such as a{path.name}")
    if format is None or format.write is None:
        raise ValueError(f"cannot save splats as {path}; end its name in {_join(list_written())}")


def is_checkpoint(path: Path | str) -> bool:
    """Whether the ending is that of checkpoints, which `splats.formats.checkpoint` reads."""
    format = find_format(path)
    return format is not None and format.is_checkpoint


def find_files(path: Path | str) -> list[Path]:
    """The file itself, or the newest splats of a result folder: one file, or one for each rank; of
    another folder, the only file of splats.

    FileNotFoundError if there are none, or several in a folder that is no result folder.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    patterns = [pattern for format in FORMATS.values() for pattern in format.patterns]
    matches = [(_step(file), -i, file) for i, p in enumerate(patterns) for file in path.glob(p)]
    if not matches:
        others = sorted(file for file in path.iterdir() if file.is_file() and find_format(file))
        if len(others) == 1:
            return others
        if others:
            names = ", ".join(file.name for file in others[:4]) + (", ..." if others[4:] else "")
            raise FileNotFoundError(
                f"{path} is no result folder, but has several files of splats ({names}); name the "
                "file itself"
            )
        raise FileNotFoundError(
            f"no splats in {path}; give a file of splats ({_join(sorted(FORMATS))}) or a result "
            "folder with ckpts/ or ply/ in it"
        )
    newest = max(matches)[:2]
    return sorted(file for *key, file in matches if tuple(key) == newest)


def read_cameras(path: Path | str) -> Cameras:
    """The cameras in a result folder's cameras.json, in the world of its splats.

    Ours is {"viewmats", "Ks", "sizes"}; Inria's is a list of {"position", "rotation", "fx", "fy",
    "width", "height"}, camera to world. ValueError names the file if it is neither or if its values
    are not finite.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        cameras = (
            _cameras_from_list(content)
            if isinstance(content, list)
            else _cameras_from_tables(content)
        )
    except (ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path} is not a cameras.json of a result folder ({error!r})") from error
    finite = cameras.viewmats.isfinite().all() and cameras.Ks.isfinite().all()
    if not finite or len(cameras) == 0 or (cameras.sizes < 1).any():
        raise ValueError(f"{path} has no cameras, or some with NaN or infinite values")
    return cameras


def _cameras_from_tables(content: dict) -> Cameras:
    return Cameras(
        torch.tensor(content["viewmats"], dtype=torch.float32),
        torch.tensor(content["Ks"], dtype=torch.float32),
        torch.tensor(content["sizes"], dtype=torch.int64),
    )


def _cameras_from_list(content: list[dict]) -> Cameras:
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


def _load_file(path: Path) -> Splats:
    format = find_format(path)
    if format is None:
        raise ValueError(f"{path} is not splats; give {_join(sorted(FORMATS))}")
    check_content(path)
    return format.read(path)


def _join(endings: list[str]) -> str:
    return f"{', '.join(endings[:-1])} or {endings[-1]}"


def _step(path: Path) -> int:
    """The step in a file's name, or in its folder's (iteration_30000/point_cloud.ply)."""
    match = re.search(r"(?:_|chkpnt|step-)(\d+)(?:_rank\d+)?$", path.stem) or re.search(
        r"^iteration_(\d+)$", path.parent.name
    )
    return int(match[1]) if match else -1
