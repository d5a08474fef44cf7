# The settings of an optimisation and of its evaluation: gsplat's, under the names that its
# trainer's flags have.
from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gsplat.strategy import DefaultStrategy, MCMCStrategy

NEVER = (-1,)  # as steps: never, or only at the end
STEPS = ("eval_steps", "save_steps", "ply_steps")
SMALLEST_PATCH = 11  # pixels a side


@dataclass(frozen=True)
class Config:
    """Settings of an optimisation; the defaults are gsplat's. ValueError for impossible values."""

    max_steps: int = 30_000
    """Total optimisation steps, one photo each."""
    eval_steps: tuple[int, ...] = (7_000, 15_000, 30_000)
    """Steps after which the held-out views are evaluated; the last step always is. -1: never."""
    save_steps: tuple[int, ...] = (7_000, 15_000, 30_000)
    """Steps after which a checkpoint is saved; the last step always is."""
    save_ply: bool = True
    """Also save a .ply."""
    ply_steps: tuple[int, ...] | None = None
    """Steps after which that is (default: --save_steps); the last step always is."""
    compression: Literal["png"] | None = None
    """png: also save the final splats compressed by gsplat, in <result_dir>/compression."""
    tb_every: int = 0
    """Write loss, PSNR and number of Gaussians for TensorBoard every N steps (0: not at all)."""
    tb_save_image: bool = False
    """With --tb_every: the held-out renders, too."""
    save_every_seconds: float = 60.0
    """Save the state this often, for a stopped or killed run to resume from."""
    steps_scaler: float = 1.0
    """Multiplies all numbers of steps except refine_every; 0.1 makes a ten times shorter run."""
    strategy: DefaultStrategy | MCMCStrategy = field(default_factory=DefaultStrategy)
    """How Gaussians are added and removed."""
    batch_size: int = 1
    """Photos a step; the learning rates grow with its square root."""
    patch_size: int | None = None
    """Train on random squares of so many pixels a side (default: on whole photos)."""

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

    depth_loss: bool = False
    """Hold the splats to the depths of the points that structure from motion saw in a photo."""
    depth_lambda: float = 1e-2
    """Weight of that: of the mean difference of 1 / depth, times the scene's scale."""

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

    packed: bool = False
    """CUDA: rasterize in gsplat's packed layout, which needs less memory and more time."""
    sparse_grad: bool = False
    """CUDA, with --packed: Adam leaves the Gaussians alone that a step does not see."""
    visible_adam: bool = False
    """Adam of Taming 3DGS: leaves the Gaussians alone that a step does not see."""

    pose_opt: bool = False
    """Optimise the training views' poses with the splats."""
    pose_opt_lr: float | None = None
    """Learning rate of the poses; decays to 1 % over the run (default: 1e-5 at 30,000 steps, and
    higher in proportion in shorter runs)."""
    pose_opt_reg: float = 1e-6
    """Weight decay of the poses' changes."""
    pose_noise: float = 0.0
    """Disturb the training views' poses, to test --pose_opt: standard deviation of the shift in
    world units and of the rotation in radians."""

    app_opt: bool = False
    """Learn an embedding of each photo that changes the Gaussians' colours in it."""
    app_embed_dim: int = 16
    """Length of the embeddings."""
    app_opt_lr: float = 1e-3
    """Learning rate of the network that reads the embeddings; theirs is 10 times higher."""
    app_opt_reg: float = 1e-6
    """Weight decay of the embeddings."""

    use_bilateral_grid: bool = False
    """Learn a bilateral grid of each photo from the scene's colours to its own."""
    bilateral_grid_shape: tuple[int, int, int] = (16, 16, 8)
    """Cells of the grids in x, in y and of luma."""

    seed: int = 42
    """Random seed."""

    def __post_init__(self) -> None:
        for name in ("max_steps", "init_num_pts", "sh_degree_interval", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        positive = ("steps_scaler", "init_extent", "init_scale", "global_scale", "near_plane")
        for name in (*positive, "save_every_seconds"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"--{name} is {value}; it must be a positive number")
        rates = [f.name for f in fields(self) if f.name.endswith("_lr")]
        weights = [f.name for f in fields(self) if f.name.endswith("_reg")]
        for name in (*rates, *weights, "pose_noise", "app_embed_dim", "tb_every", "depth_lambda"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"--{name} is {value}; it must not be negative")
        if self.patch_size is not None and self.patch_size < SMALLEST_PATCH:
            raise ValueError(
                f"--patch_size is {self.patch_size}; it must be at least {SMALLEST_PATCH}, the "
                "window of SSIM"
            )
        if min(self.bilateral_grid_shape) < 2:
            raise ValueError("--bilateral_grid_shape needs at least 2 cells along each axis")
        if self.sparse_grad and not self.packed:
            raise ValueError("--sparse_grad needs --packed")
        if self.sparse_grad and self.visible_adam:
            raise ValueError("--sparse_grad and --visible_adam are two ways to one end; give one")
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
        for name in STEPS:
            steps = getattr(self, name)
            if steps not in (None, NEVER) and any(step < 1 for step in steps):
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
            **{
                name: steps if steps in (None, NEVER) else tuple(times(step) for step in steps)
                for name, steps in ((name, getattr(self, name)) for name in STEPS)
            },
            sh_degree_interval=times(self.sh_degree_interval),
            strategy=replace(self.strategy, **strategy),
            steps_scaler=1.0,
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """How results are measured and shown."""

    lpips_net: Literal["alex", "vgg", "both"] = "alex"
    """Network of the perceptual metric; both: lpips with AlexNet and lpips_vgg with VGG16."""
    backbones: Path | None = None
    """Folder with alexnet_features.safetensors and vgg16_features.safetensors for LPIPS, where
    torchvision's weights are neither there nor to be downloaded (or set LPIPS_BACKBONES; `python -m
    evaluation.backbones fetch` gets them)."""
    use_color_correction_metric: bool = False
    """Also measure renders whose colours are fitted to the photo's (cc_psnr, cc_ssim, cc_lpips), as
    is always done with --app_opt and --use_bilateral_grid."""
    color_correct_method: Literal["affine", "quadratic"] = "affine"
    """That fit: of each channel alone, or of RGB by a polynomial of degree 2."""
    save_video: bool = True
    """Write a video along a camera path at the end."""
    render_traj_path: Literal["interp", "ellipse", "raw", "spiral"] = "interp"
    """The video's path: through the training cameras, an ellipse around the scene, or raw: the
    training cameras themselves. spiral is refused."""

    def choose_correction(self, config: Config) -> str | None:
        """How colours are fitted in a run with this config; None: they are not."""
        wanted = self.use_color_correction_metric or config.app_opt or config.use_bilateral_grid
        return self.color_correct_method if wanted else None


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
