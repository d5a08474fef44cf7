# The folder of a run, with gsplat's and Difix3D's file names; steps in names count from zero.
from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from scenes.scene import Scene

SAME = 1e-3  # of a scene's scale: how far apart equal cameras may be


@dataclass(frozen=True)
class ResultFolder:
    """Paths of the parts of a run; no folder is created before something is written to it."""

    path: Path

    @property
    def settings(self) -> Path:
        """The settings by flag name."""
        return self.path / "cfg.yml"

    @property
    def cameras(self) -> Path:
        """The capture's cameras and split, for the viewer and for --trajectory."""
        return self.path / "cameras.json"

    def find_world(self, scene: Scene) -> Scene | None:
        """The scene in the world of the run's splats; None if no run of its views is here."""
        try:
            content = json.loads(self.cameras.read_text(encoding="utf-8"))
            world = scene.in_world(torch.tensor(content["transform"], dtype=torch.float64))
            theirs = replace(world.cameras, viewmats=torch.tensor(content["viewmats"])).positions
            same = list(content["names"]) == list(scene.names)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, RecursionError):
            return None
        away = (world.cameras.positions - theirs).norm(dim=1).median()
        return world if same and away < SAME * world.scale else None

    @property
    def resume(self) -> Path:
        """The state that a stopped run goes on from."""
        return self.path / "resume.pt"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.path / "report"

    def checkpoint(self, step: int) -> Path:
        """Splats as gsplat's trainers save them, after `step`."""
        return self.path / "ckpts" / f"ckpt_{step}_rank0.pt"

    def ply(self, step: int) -> Path:
        """Splats as other programs read them."""
        return self.path / "ply" / f"point_cloud_{step}.ply"

    @property
    def compression(self) -> Path:
        """The final splats as gsplat compresses them."""
        return self.path / "compression" / "rank0"

    def video(self, step: int) -> Path:
        """A flight through the scene."""
        return self.path / "videos" / f"traj_{step}.mp4"

    def train_stats(self, step: int) -> Path:
        """Time, memory and number of Gaussians."""
        return self.path / "stats" / f"train_step{step:04d}_rank0.json"

    def val_stats(self, step: int) -> Path:
        """Means over the held-out views."""
        return self.path / "stats" / f"val_step{step:04d}.json"

    def per_view_stats(self, step: int) -> Path:
        """Numbers of each held-out view."""
        return self.path / "stats" / f"val_step{step:04d}_per_view.json"

    def rounds_stats(self, step: int) -> Path:
        """What became of the rounds."""
        return self.path / "stats" / f"rounds_step{step:04d}.json"

    def val_renders(self, step: int) -> Path:
        """Pictures of the held-out views."""
        return self.path / "renders" / "val" / str(step)

    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints that are there, by step, in order."""
        files = self.path.glob("ckpts/ckpt_*_rank0.pt")
        steps = {file: re.fullmatch(r"ckpt_(\d+)_rank0\.pt", file.name) for file in files}
        return dict(sorted((int(match[1]), file) for file, match in steps.items() if match))

    @property
    def rounds(self) -> Path:
        """What a round needs only while it is judged."""
        return self.path / "rounds"

    @property
    def vanilla(self) -> ResultFolder:
        """The control: the same run without fixing."""
        return ResultFolder(self.path / "vanilla")

    @property
    def fork(self) -> Path:
        """The control's state where the first round begins."""
        return self.rounds / "fork.pt"

    def novel_renders(self, step: int) -> Path:
        """Pictures of the views of the round that began after `step`."""
        return self.path / "renders" / "novel" / str(step)

    def clear(self, first: int = 0) -> None:
        """Remove what a run wrote at steps >= `first`, its state and its report, nothing else."""
        self.forget(first)
        (self.report / "index.html").unlink(missing_ok=True)
        self.clean(fork=False)
        self.clear_unfinished()

    def clean(self, fork: bool = True) -> None:
        """Remove what only an unfinished run needs; `fork`: what its control left to it too."""
        for file in (self.resume, *self.rounds.glob("*.pt")):
            if fork or file != self.fork:
                file.unlink(missing_ok=True)
        if self.rounds.is_dir() and not any(self.rounds.iterdir()):
            self.rounds.rmdir()

    def forget(self, first: int) -> None:
        """Remove what was saved or measured at steps >= `first`."""
        patterns = (
            "ckpts/ckpt_*_rank0.pt",
            "ply/point_cloud_*.ply",
            "videos/traj_*.mp4",
            "stats/train_step*_rank0.json",
            "stats/val_step*.json",
            "stats/rounds_step*.json",
            "renders/val/*",
            "renders/novel/*",
        )
        for pattern in patterns:
            for file in self.path.glob(pattern):
                match = re.search(r"\d+", file.name)
                if match and int(match[0]) >= first:
                    shutil.rmtree(file) if file.is_dir() else file.unlink()

    def clear_unfinished(self) -> None:
        """Remove the temporary files of a run that was killed while it saved its state."""
        for file in self.path.glob(f".{self.resume.stem}-*{self.resume.suffix}"):
            file.unlink()
