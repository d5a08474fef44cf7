# Splats on disk, whatever holds them: .ply, .pt, or a folder of results.
from __future__ import annotations

import re
from pathlib import Path

import torch

from splats import checkpoint, ply
from splats.gaussians import NAMES, Splats

# Where trainers put splats in a result folder: gsplat's and ours, Inria's, and a bare folder.
PATTERNS = (
    "ckpts/ckpt_*_rank*.pt",
    "ckpt_*_rank*.pt",
    "ply/point_cloud_*.ply",
    "point_cloud_*.ply",
    "point_cloud/iteration_*/point_cloud.ply",
    "iteration_*/point_cloud.ply",
    "point_cloud.ply",
)


def load(path: Path | str) -> Splats:
    """Splats from a .ply, a .pt, or the newest ones in a result folder.

    The parts that several GPUs saved (`ckpt_*_rank0.pt`, `_rank1.pt`, ...) are joined.
    FileNotFoundError or ValueError names the file and what is wrong.
    """
    parts = [_load_file(file) for file in find(path)]
    if len(parts) == 1:
        return parts[0]
    degree = max(part.sh_degree for part in parts)
    parts = [part.with_sh_degree(degree) for part in parts]
    return Splats(**{name: torch.cat([part[name].detach() for part in parts]) for name in NAMES})


def confidence(path: Path | str) -> torch.Tensor | None:
    """How far each of the splats that `load` finds there is borne out by photos, [N] in [0,1], if
    that was kept with them; errors as `load`."""
    parts = []
    for file in find(path):
        if file.suffix == ".ply":
            return None
        kept = checkpoint.load(file)
        values, count = kept.get("confidence"), len(checkpoint.parse(file, kept)[0]["means"])
        if not isinstance(values, torch.Tensor) or values.shape != (count,):
            return None
        parts.append(values.float().clamp(0, 1))
    return torch.cat(parts)


def antialiased(path: Path | str) -> bool:
    """Whether a result folder's cfg.yml, ours or gsplat's, says that its splats are antialiased."""
    settings = Path(path) / "cfg.yml"
    if not settings.is_file():
        return False
    text = settings.read_text(errors="replace")  # gsplat's has Python objects: no plain YAML
    return re.search(r"^antialiased: true\s*$", text, re.MULTILINE) is not None


def save(path: Path | str, splats: Splats, *, step: int = 0) -> None:
    """Write splats as the suffix says: .ply, or .pt with its `step`. ValueError for another one."""
    path = Path(path)
    if path.suffix == ".ply":
        ply.write(path, splats)
    elif path.suffix == ".pt":
        checkpoint.write(path, splats, step)
    else:
        raise ValueError(f"cannot save splats as {path}; end its name in .ply or .pt")


def find(path: Path | str) -> list[Path]:
    """The file itself, or the newest splats of a result folder: one file, or one for each rank."""
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    found = [(_step(file), -i, file) for i, p in enumerate(PATTERNS) for file in path.glob(p)]
    if not found:
        raise FileNotFoundError(
            f"no splats in {path}; give a .ply, a .pt or a result folder with ckpts/ or ply/ in it"
        )
    newest = max(found)[:2]
    return sorted(file for *key, file in found if tuple(key) == newest)


def _load_file(path: Path) -> Splats:
    if path.suffix == ".ply":
        return ply.read(path)
    if path.suffix in (".pt", ".pth", ".ckpt"):
        return checkpoint.read(path)[0]
    raise ValueError(f"{path} is not splats; give a .ply or a .pt")


def _step(path: Path) -> int:
    """The step in a file's name, or in its folder's (iteration_30000/point_cloud.ply)."""
    match = re.search(r"_(\d+)(?:_rank\d+)?$", path.stem) or re.search(
        r"^iteration_(\d+)$", path.parent.name
    )
    return int(match[1]) if match else -1
