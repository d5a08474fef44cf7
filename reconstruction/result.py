# The folder of a run, with gsplat's and Difix3D's file names; steps in names count from zero.
from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ResultFolder:
    """Where the parts of a run lie; nothing is made before it is written."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "cfg.yml"

    @property
    def cameras(self) -> Path:
        return self.path / "cameras.json"

    @property
    def resume(self) -> Path:
        return self.path / "resume.pt"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def checkpoint(self, step: int) -> Path:
        return self.path / "ckpts" / f"ckpt_{step}_rank0.pt"

    def ply(self, step: int) -> Path:
        return self.path / "ply" / f"point_cloud_{step}.ply"

    def video(self, step: int) -> Path:
        return self.path / "videos" / f"traj_{step}.mp4"

    def train_stats(self, step: int) -> Path:
        return self.path / "stats" / f"train_step{step:04d}_rank0.json"

    def val_stats(self, step: int) -> Path:
        return self.path / "stats" / f"val_step{step:04d}.json"

    def per_view_stats(self, step: int) -> Path:
        return self.path / "stats" / f"val_step{step:04d}_per_view.json"

    def rounds_stats(self, step: int) -> Path:
        return self.path / "stats" / f"rounds_step{step:04d}.json"

    def val_renders(self, step: int) -> Path:
        return self.path / "renders" / "val" / str(step)

    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints that are there, by step, in order."""
        found = self.path.glob("ckpts/ckpt_*_rank0.pt")
        steps = {file: re.fullmatch(r"ckpt_(\d+)_rank0\.pt", file.name) for file in found}
        return dict(sorted((int(match[1]), file) for file, match in steps.items() if match))

    @property
    def rounds(self) -> Path:
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
        """Remove what was kept or measured at steps >= `first`."""
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
