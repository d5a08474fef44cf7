# PSNR, SSIM and LPIPS of renders against photos, as gsplat's trainers and Difix3D compute them.
# LPIPS: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric".
from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evaluation.backbones.network import load_lpips

if TYPE_CHECKING:
    from lpips import LPIPS

PSNR_CAP = 100.0  # dB; reached only by an rms error below 1e-5, that is by identical images
SSIM_WINDOW = 11  # pixels; the Gaussian window's size at sigma 1.5
LPIPS_TEXT = {
    "alex": "LPIPS v0.1 AlexNet (inputs scaled from [0,1] to [-1,1])",
    "vgg": "LPIPS v0.1 VGG16 (inputs left in [0,1], as 3DGS, gsplat and Difix3D report it)",
}
# The network of each LPIPS in METRICS, for each lpips_net
LPIPS_NETS: dict[str | None, dict[str, str]] = {
    None: {},
    "alex": {"lpips": "alex"},
    "vgg": {"lpips": "vgg"},
    "both": {"lpips": "alex", "lpips_vgg": "vgg"},
}


@dataclass(frozen=True)
class Metric:
    """A metric: how it is shown, which way is better, and how it is computed.

    name: its key in files; label: one word for tables and plots.
    about: a phrase for the protocol's line; {space} stands for the pixels' colour space. That of
        LPIPS is its network's in LPIPS_TEXT.
    measure: of a prediction and a truth, float32 [1,3,H,W] in [0,1]; None for LPIPS, whose networks
        `Metrics` has.
    higher_is_better: False where less is better. digits: decimals in tables. unit: such as dB.
    on_luma: computed on luma where a fixer's test asks for that.
    takes_mask: `measure` has a third parameter, a mask bool [H,W] or None, and leaves out pixels
        where it is False; other metrics see the truth there.
    """

    name: str
    label: str
    about: str
    measure: Callable[..., float] | None
    higher_is_better: bool = True
    digits: int = 3
    unit: str = ""
    on_luma: bool = False
    takes_mask: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.higher_is_better else -1


class Metrics:
    """The metrics in METRICS per view.

    lpips_net: "alex", "vgg", "both" (lpips with AlexNet and lpips_vgg with VGG), or None for no
        LPIPS. AlexNet gets its inputs in [-1, 1], the range the network was calibrated for. VGG
        gets them in [0, 1]: an error of the 3DGS evaluation (`normalize=False`) that published
        numbers share, kept for comparability.
    backbones: a folder with the weights of LPIPS's backbones, see `evaluation.backbones.features`.
    lpips_reason: None if LPIPS is computed, else a sentence with the reason. The backbones' weights
        are looked up, and downloaded if missing, when the object is created.
    SSIM is torchmetrics', averaged over its whole map, as torchmetrics itself does since 1.5; older
    releases omitted 5 pixels at each border, which changes the third digit.

    Raises ValueError for another lpips_net.
    """

    def __init__(
        self,
        lpips_net: str | None = "alex",
        device: torch.device | str = "cpu",
        backbones: Path | str | None = None,
    ):
        if lpips_net not in LPIPS_NETS:
            raise ValueError(f"lpips_net is {lpips_net!r}; choose alex, vgg, both or None.")
        self.lpips_net = lpips_net
        self.device = torch.device(device)
        self.lpips_reason = None if lpips_net else "LPIPS was not asked for."
        self._networks: dict[str, LPIPS | None] = {"lpips": None}
        for name, net in LPIPS_NETS[lpips_net].items():
            network, reason = load_lpips(net, backbones)
            self._networks[name] = network and network.to(self.device)
            self.lpips_reason = self.lpips_reason or reason

    @property
    def _keys(self) -> list[str]:
        """The metrics of a result: all in METRICS, but lpips_vgg only where it was asked for."""
        return [name for name in METRICS if METRICS[name].measure or name in self._networks]

    @property
    def names(self) -> list[str]:
        """The metrics that are computed: all in METRICS, but LPIPS only where it is available."""
        return [name for name in self._keys if METRICS[name].measure or self._networks[name]]

    @property
    def protocol(self) -> str:
        """One line on how the numbers were computed, with {resolution} to be filled in."""
        return self.describe_protocol("RGB", "float renders clamped to [0,1]", "views")

    def describe_protocol(
        self, space: str, pictures: str, over: str, frame: str = "full frame, no mask"
    ) -> str:
        """The protocol's line; space: of PSNR and SSIM, over: what means are taken over, frame:
        which pixels count."""
        abouts = []
        for name in self._keys:
            net = LPIPS_NETS[self.lpips_net].get(name)
            about = LPIPS_TEXT.get(net, METRICS[name].about).format(space=space)
            abouts.append(about if net is None or name in self.names else f"{about} not available")
        text = ", ".join(abouts)
        return f"{text}; on {pictures}, {frame}, mean over {over}, resolution {{resolution}}"

    def __call__(
        self,
        prediction: Tensor | np.ndarray,
        truth: Tensor | np.ndarray,
        mask: Tensor | np.ndarray | None = None,
    ) -> dict[str, float | None] | list[dict[str, float | None]]:
        """{"psnr", "ssim", "lpips"}, the names in METRICS, of a view [H, W, 3], or a list of them
        for [N, H, W, 3]; "lpips_vgg" too if both networks were asked for. mask: bool [H, W] or
        [N, H, W], False where pixels do not count.

        The prediction is clamped to [0, 1], the truth must lie there. psnr is in dB and at most
        PSNR_CAP, so that identical images have a finite value; LPIPS is None where its network is
        not available.

        Raises ValueError if sizes differ, a side is below SSIM's window, values are not floats, the
        truth is out of range, or a prediction has a NaN or infinity (the message names its view).
        """
        prediction = torch.as_tensor(prediction, device=self.device)
        truth = torch.as_tensor(truth, device=self.device)
        _check(prediction, truth)
        masks = [None] * len(prediction)
        if mask is not None:
            mask = masks = torch.as_tensor(mask, device=self.device)
            if mask.dtype != torch.bool or mask.shape != prediction.shape[:-1] or not mask.any():
                raise ValueError(
                    f"The mask is {mask.dtype} {list(mask.shape)} for images of "
                    f"{list(prediction.shape)}; it must be bool, of their size, and not empty."
                )
        if prediction.ndim == 3:
            return self._view(prediction, truth, mask)
        return [self._view(*view) for view in zip(prediction, truth, masks, strict=True)]

    @torch.inference_mode()
    def _view(
        self, prediction: Tensor, truth: Tensor, mask: Tensor | None
    ) -> dict[str, float | None]:
        if mask is not None:
            prediction = torch.where(mask[..., None], prediction, truth.to(prediction))
        prediction, truth = (
            image.float().clamp(0, 1).movedim(-1, 0)[None] for image in (prediction, truth)
        )  # [1, 3, H, W]
        result = {}
        for name in self._keys:
            metric = METRICS[name]
            if metric.measure is None:
                result[name] = self._measure_lpips(name, prediction, truth)
            else:
                masks = [mask] if metric.takes_mask else []
                result[name] = metric.measure(prediction, truth, *masks)
        return result

    def _measure_lpips(self, name: str, prediction: Tensor, truth: Tensor) -> float | None:
        network = self._networks[name]
        if network is None:
            return None
        scaled = LPIPS_NETS[self.lpips_net][name] == "alex"
        return network(prediction, truth, normalize=scaled).item()


def measure_psnr(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """PSNR in dB of images [1,3,H,W] in [0,1], where the mask [H,W] is True."""
    error = (prediction.double() - truth.double()).square()
    return mse_to_psnr((error if mask is None else error[..., mask]).mean().item())


def measure_ssim(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """SSIM of images [1,3,H,W] in [0,1], averaged over its map where the mask [H,W] is True.

    Windows reach into what the mask hides; the caller shows the same in both images there.
    """
    # torchmetrics takes longer to load than torch itself
    from torchmetrics.functional.image import structural_similarity_index_measure

    index = structural_similarity_index_measure(
        prediction, truth, data_range=1.0, reduction=None, return_full_image=True
    )
    return (index[1] if mask is None else index[1][..., mask]).mean().item()


# All metrics, in the order of tables. A line here is all that a new one needs: gains, tables,
# metrics.txt, reports and validations then have it.
METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "psnr",
            "PSNR",
            f"PSNR ({{space}}, data range 1, at most {PSNR_CAP:.0f} dB)",
            measure_psnr,
            digits=2,
            unit="dB",
            on_luma=True,
            takes_mask=True,
        ),
        Metric(
            "ssim",
            "SSIM",
            f"SSIM ({SSIM_WINDOW}x{SSIM_WINDOW} Gaussian window, sigma 1.5, data range 1, "
            "mean over all pixels)",
            measure_ssim,
            on_luma=True,
            takes_mask=True,
        ),
        Metric("lpips", "LPIPS", "no LPIPS", None, higher_is_better=False),
        Metric("lpips_vgg", "LPIPS VGG", "", None, higher_is_better=False),
    )
}


def mse_to_psnr(mse: float) -> float:
    """PSNR in dB of a mean squared error of values in [0,1]; at most PSNR_CAP, NaN for NaN."""
    return PSNR_CAP if mse == 0 else min(-10 * math.log10(mse), PSNR_CAP)


def average(results: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Mean of every key over views; None where any view has None; {} for no views.

    Raises ValueError if the views have different keys.
    """
    if not results:
        return {}
    keys = results[0].keys()
    if any(result.keys() != keys for result in results):
        raise ValueError("The views' metrics have different keys and cannot be averaged.")
    columns = {key: [result[key] for result in results] for key in keys}
    return {
        key: None if None in values else sum(values) / len(values)
        for key, values in columns.items()
    }


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _check(prediction: Tensor, truth: Tensor) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(
            f"The prediction is {list(prediction.shape)} but the truth is {list(truth.shape)}; "
            "metrics compare images of one size."
        )
    if prediction.ndim not in (3, 4) or prediction.shape[-1] != 3:
        raise ValueError(
            f"The images are {list(prediction.shape)}; metrics take [H, W, 3] or [N, H, W, 3]."
        )
    height, width = prediction.shape[-3:-1]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(
            f"The images are {width}x{height} pixels; SSIM needs at least {SSIM_WINDOW} a side."
        )
    if not (prediction.is_floating_point() and truth.is_floating_point()):
        raise ValueError("The images are not floats; divide 8-bit values by 255 first.")
    views = prediction.reshape(-1, height, width, 3)
    bad = ~views.isfinite().flatten(1).all(1)
    if bad.any():
        index = bad.nonzero()[0].item()
        count = (~views[index].isfinite()).any(-1).sum().item()
        raise ValueError(
            f"The prediction of view {index} has {count} pixels that are NaN or infinite."
        )
    if truth.numel() and not (truth.min() >= 0 and truth.max() <= 1):
        raise ValueError("The truth has values outside [0, 1]; 8-bit values are divided by 255.")
