# The settings of an optimisation and of its evaluation: gsplat's, under the names that its
# trainer's flags have.
from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gsplat.strategy import DefaultStrategy, MCMCStrategy


@dataclass(frozen=True)
class Config:
    """Settings of an optimisation; the defaults are gsplat's. ValueError for impossible values."""

    max_steps: int = 30_000
    """Total optimisation steps, one photo each."""
    eval_steps: tuple[int, ...] = (7_000, 15_000, 30_000)
    """Steps after which the held-out views are evaluated; the last step always is."""
    save_steps: tuple[int, ...] = (7_000, 15_000, 30_000)
    """Steps after which a checkpoint and a .ply are saved; the last step always is."""
    save_every_seconds: float = 60.0
    """Save the state this often, for a stopped or killed run to resume from."""
    steps_scaler: float = 1.0
    """Multiplies all numbers of steps except refine_every; 0.1 makes a ten times shorter run."""
    strategy: DefaultStrategy | MCMCStrategy = field(default_factory=DefaultStrategy)
    """How Gaussians are added and removed."""

    init_type: Literal["sfm", "random"] = "sfm"
    """Initialise from the capture's points, or at random."""
    init_num_pts: int = 100_000
    """Number of random points, at most the strategy's cap_max."""
    init_extent: float = 3.0
    """Half the side of the random points' cube, in units of the cameras' spread."""
    init_opa: float = 0.1
    """Initial opacity."""
    init_scale: float = 1.0
    """Initial size, relative to the distance to the nearest points."""
    global_scale: float = 1.0
    """Multiplies the scene's scale, which sets the means' learning rate and densification."""

    sh_degree: int = 3
    """Degree of the spherical harmonics, 0 to 3."""
    sh_degree_interval: int = 1000
    """Steps after which one more degree is used."""
    near_plane: float = 0.01
    """Gaussians closer than this are not rendered."""
    far_plane: float = 1e10
    """Gaussians farther than this are not rendered."""
    antialiased: bool = False
    """Mip-Splatting's 2D filter; the result must be rendered with it, too."""
    random_bkgd: bool = False
    """Train on random backgrounds, which discourages half-transparent Gaussians."""
    background: Literal["white", "black", "random"] | None = None
    """Behind the splats and photos with alpha (random: in training). Default: for photos with alpha
    random, or the colour of the capture's benchmark; for others black."""

    ssim_lambda: float = 0.2
    """Weight of 1 - SSIM in the loss; L1 has the remaining weight."""
    opacity_reg: float = 0.0
    """Weight of the mean opacity in the loss."""
    scale_reg: float = 0.0
    """Weight of the mean scale in the loss."""

    means_lr: float = 1.6e-4
    """Learning rate of the means, times the scene's scale; decays to 1 % over the run."""
    scales_lr: float = 5e-3
    """Learning rate of the log scales."""
    quats_lr: float = 1e-3
    """Learning rate of the quaternions."""
    opacities_lr: float = 5e-2
    """Learning rate of the opacity logits."""
    sh0_lr: float = 2.5e-3
    """Learning rate of the base colour."""
    shN_lr: float = 2.5e-3 / 20
    """Learning rate of the higher spherical harmonics."""

    seed: int = 42
    """Random seed."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "init_num_pts", "sh_degree_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        positive = ("steps_scaler", "init_extent", "init_scale", "global_scale", "near_plane")
        for name in (*positive, "save_every_seconds"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"--{name} is {value}; it must be a positive number")
        rates = [f.name for f in fields(self) if f.name.endswith("_lr")]
        for name in (*rates, "opacity_reg", "scale_reg"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must not be negative")
        if self.random_bkgd and self.background in ("white", "black"):
            raise ValueError(f"--random_bkgd contradicts --background {self.background}")
        if not self.near_plane < self.far_plane:
            raise ValueError("--far_plane must lie behind --near_plane")
        if not 0 <= self.sh_degree <= 3:
            raise ValueError(f"--sh_degree is {self.sh_degree}; it must be 0, 1, 2 or 3")
        if not 0 < self.init_opa < 1:
            raise ValueError(f"--init_opa is {self.init_opa}; it must lie between 0 and 1")
        if not 0 <= self.ssim_lambda <= 1:
            raise ValueError(f"--ssim_lambda is {self.ssim_lambda}; it must lie in 0 to 1")
        for name in ("eval_steps", "save_steps"):
            if any(step < 1 for step in getattr(self, name)):
                raise ValueError(f"--{name} counts from 1; leave out smaller numbers")
        for name in ("refine_every", "reset_every", "cap_max"):
            if getattr(self.strategy, name, 1) < 1:
                raise ValueError(f"--strategy.{name} must be at least 1")

    def scaled(self) -> Config:
        """This config with steps_scaler applied to the numbers of steps."""

        def times(steps: int) -> int:
            return max(1, round(steps * self.steps_scaler))

        # refine_every is not scaled: gradients averaged over fewer views mislead densification
        # (with a tenth of the steps and views the number of Gaussians explodes).
        names = ("refine_start_iter", "refine_stop_iter", "reset_every")
        strategy = {n: times(getattr(self.strategy, n)) for n in names if hasattr(self.strategy, n)}
        return replace(
            self,
            max_steps=times(self.max_steps),
            eval_steps=tuple(times(step) for step in self.eval_steps),
            save_steps=tuple(times(step) for step in self.save_steps),
            sh_degree_interval=times(self.sh_degree_interval),
            strategy=replace(self.strategy, **strategy),
            steps_scaler=1.0,
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """How results are measured and shown."""

    lpips_net: Literal["alex", "vgg"] = "alex"
    """Network of the perceptual metric."""
    backbones: Path | None = None
    """Folder with alexnet_features.safetensors and vgg16_features.safetensors for LPIPS, where
    torchvision's weights are neither there nor to be downloaded (or set LPIPS_BACKBONES; `python -m
    evaluation.backbones fetch` gets them)."""
    save_video: bool = True
    """Write a video along a camera path at the end."""
    render_traj_path: Literal["interp", "ellipse"] = "interp"
    """The video's path: through the training cameras, or an ellipse around the scene."""


def default() -> Config:
    """Adaptive density control (Kerbl et al. 2023)."""
    return Config()


def mcmc() -> Config:
    """3DGS as Markov Chain Monte Carlo (arXiv 2404.09591)."""
    return Config(
        strategy=MCMCStrategy(), init_opa=0.5, init_scale=0.1, opacity_reg=0.01, scale_reg=0.01
    )


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """The settings by flag name, nested ones as `strategy.cap_max`; plain values only."""
    values: dict[str, Any] = {}
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            values[prefix + f.name] = type(value).__name__
            values |= flatten(value, f"{prefix}{f.name}.")
        else:
            plain = str(value) if isinstance(value, Path) else value
            values[prefix + f.name] = list(plain) if isinstance(plain, tuple) else plain
    return values
