# GS-VAR: prefix encoder, next-scale transformer, refiner and VQ-VAE put together.
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.gsvar.config import GSVARConfig
from models.gsvar.init import initialise
from models.gsvar.prefix import PrefixEncoder
from models.gsvar.prior import RenderPrior
from models.gsvar.refiner import Refiner
from models.layers.blocks import EPS, AdaLN, modulate
from models.layers.multihead import Attend
from models.layers.rope import rope_table
from models.var.scales import ScaleSchedule
from models.var.segments import views_by_scale
from models.var.transformer import ByScale, Masked, Transformer
from models.vqvae.model import VQVAE

# B batch, V view (0 the render, then the references), R references, L tokens, C channels, Cz
# latent channels


class GSVAR(nn.Module):
    """Next-scale restoration of a render, guided by any number of reference views.

    Images are [B,3,H,W] in [-1,1]. A new model is initialised for training; weights come from
    `models.gsvar.loading.load`.
    """

    def __init__(self, config: GSVARConfig):
        super().__init__()
        self.config = config
        width, latent = config.width, config.latent_channels
        rows, columns = config.scales.latent
        self.vqvae = VQVAE(config.vqvae)
        self.prefix = PrefixEncoder(config.prefix_channels, width, config.vqvae_patch)
        self.prefix_position = nn.Parameter(torch.empty(1, rows * columns + 1, width))
        self.label = nn.Embedding(config.labels, width)
        self.scale_embedding = nn.Embedding(len(config.scales), width)
        self.word = nn.Linear(latent, width)
        self.transformer = Transformer(
            config.depth,
            width,
            config.heads,
            mixing_blocks=config.mixing_blocks,
            qk_norm=config.qk_norm,
            drop_path=config.drop_path,
            shared_adaln=config.shared_adaln,
        )
        self.head_adaln = AdaLN(width, 2)
        self.head = nn.Linear(width, config.vocabulary)
        self.prior = RenderPrior(width, latent, len(config.scales)) if config.render_prior else None
        self.refiner_norm = nn.LayerNorm(width, eps=EPS)
        self.refiner = Refiner(latent, width, config.refiner_width, config.refiner_blocks)
        initialise(self)

    # what the model is -------------------------------------------------------------------------

    @property
    def has_bridge(self) -> bool:
        """Whether bridge weights were loaded or added."""
        return self.vqvae.bridge is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.word.weight.device

    def accepts(self, rows: int, columns: int) -> bool:
        """Whether a latent of this shape can be restored in one piece (the weights may still have
        been trained on no such shape)."""
        try:
            self.fit_scales(rows, columns)
        except ValueError:
            return False
        return True

    def fit_scales(self, rows: int, columns: int) -> ScaleSchedule:
        """The scales for a latent of this shape; ValueError if it is less than half or more than
        twice the trained."""
        own = self.config.scales.latent
        for count, trained in zip((rows, columns), own, strict=True):
            if not trained <= 2 * count <= 4 * trained:
                raise ValueError(
                    f"a latent of {rows}x{columns} is not within half to twice {own[0]}x{own[1]}"
                )
        return self.config.scales.fitted(rows, columns)

    def mix_in(self, blocks: Sequence[int]) -> None:
        """Let render and references see each other in these blocks only; those beyond the depth are
        left out, as the original does. ValueError if none is left."""
        depth = self.config.depth
        mixing = tuple(sorted({i for i in blocks if 0 <= i < depth}))
        if not mixing:
            raise ValueError(f"none of the blocks {list(blocks)} lies in 0..{depth - 1}")
        everywhere = len(mixing) == depth
        self.config = replace(self.config, mixing_blocks=None if everywhere else mixing)
        self.transformer.mixes = tuple(i in mixing for i in range(depth))

    def read_alpha(self) -> None:
        """See VQVAE.read_alpha."""
        self.vqvae.read_alpha()
        self.config = replace(self.config, render_alpha=True)

    def add_fine(self, width: int) -> None:
        """See VQVAE.add_fine; ValueError also for a width that no config can have."""
        config = replace(self.config, fine_width=width)
        self.vqvae.add_fine(width)
        self.config = config

    # embeddings --------------------------------------------------------------------------------

    def prefix_tokens(self, views: Tensor, labels: Tensor) -> Tensor:
        """Views [B,V,3,H,W] and labels [1 or B,V] -> prefix and label tokens [B,V,P+1,C]."""
        B, V = views.shape[:2]
        images = views.flatten(0, 1).to(self.word.weight.dtype)
        rows, columns = (n // self.config.vqvae.stride for n in images.shape[-2:])
        prefix = rearrange(self.prefix(images), "(b v) p c -> b v p c", b=B)
        label = self.label(labels).expand(B, V, -1)[:, :, None]
        position = self.positions(rows, columns) + self.scale_embedding.weight[0]
        return torch.cat((prefix, label), 2) + position

    def positions(self, rows: int, columns: int) -> Tensor:
        """Learned positions of the prefix and label tokens [1,P+1,C], interpolated for another
        latent shape."""
        own = self.config.scales.latent
        if (rows, columns) == own:
            return self.prefix_position
        grid = rearrange(self.prefix_position[:, :-1], "b (r c) d -> b d r c", r=own[0])
        grid = F.interpolate(grid, size=(rows, columns), mode="bicubic")
        return torch.cat((rearrange(grid, "b d r c -> b (r c) d"), self.prefix_position[:, -1:]), 1)

    def rope(self, scales: ScaleSchedule) -> Tensor:
        """Rotary table [2, P+1+L-1, d/2] of a whole view: prefix grid, label, scales 1, 2, ..."""
        dtype = torch.promote_types(self.word.weight.dtype, torch.float32)
        head_dim = self.config.width // self.config.heads
        return cached_rope(scales, head_dim, self.config.rope_extent, dtype, self.device)

    @staticmethod
    def segment_lengths(scales: ScaleSchedule) -> tuple[int, ...]:
        """Tokens of a view at each scale; the first has the prefix before its one token."""
        return (scales.lengths[-1] + 1, *scales.lengths[1:])

    # training ----------------------------------------------------------------------------------

    def forward(
        self,
        views: Tensor,
        inputs: Tensor,
        labels: Tensor | None = None,
        drop_path_noise: Tensor | None = None,
        rest: Tensor | None = None,
    ) -> Tensor:
        """Teacher forcing: the last block's output at all token positions [B,V,L,C], L = sum of
        all scales.

        `views` [B,V,3,H,W], view 0 the render; `inputs` [B,V,L-1,Cz] from
        `vqvae.quantizer.inputs` (for the render the ground truth's tokens, for a reference its
        own); `labels` [B,V], by default 0, 1, 1, ...; `drop_path_noise` [B,depth,2] in [0,1) for
        stochastic depth, by default torch's own; `rest` for a model with a render prior.
        """
        V = views.shape[1]
        rows, columns = (n // self.config.vqvae.stride for n in views.shape[-2:])
        scales = self.fit_scales(rows, columns)
        lengths = self.segment_lengths(scales)
        if labels is None:
            labels = self.default_labels(V)
        at = scale_of_tokens(lengths, self.device)
        with torch.autocast(self.device.type, enabled=False):  # pictures enter unrounded
            x = self.word(inputs.to(self.word.weight.dtype)) + self.scale_embedding(at)
            if self.prior is not None:
                render = self.prior.word(rest[:, :, 1:].to(x.dtype))
                x = torch.cat((x[:, :1] + render, x[:, 1:]), 1)
            x = torch.cat((self.prefix_tokens(views, labels), x), 2)
        attends = self.attends(lengths, V, x.dtype)
        modulations = self.transformer.modulations(self.label(labels))
        x = self.transformer(x, modulations, self.rope(scales), attends, drop_path_noise)
        return x[:, :, lengths[0] - 1 :]

    def attends(self, lengths: tuple[int, ...], views: int, dtype: torch.dtype) -> list[Attend]:
        """How each block attends in training: by FlexAttention on CUDA in half precision."""
        kind, device = self.device.type, self.device
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        ref_attends = self.config.ref_attends
        if kind == "cuda" and dtype in (torch.float16, torch.bfloat16):
            mixed, apart = (
                Masked(block_mask(lengths, v, ref_attends, device), v > 1) for v in (views, 1)
            )
        else:
            mixed, apart = (ByScale(lengths, ref_attends, mixing) for mixing in (True, False))
        return [mixed if mixes else apart for mixes in self.transformer.mixes]

    def default_labels(self, views: int) -> Tensor:
        """Labels [1,V]: 0 for the render, 1 for the references."""
        return torch.arange(views, device=self.device).clamp(max=1)[None]

    def rest(self, latent: Tensor, inputs: Tensor, scales: ScaleSchedule) -> Tensor | None:
        """A render's residual at each scale [B,1,L,Cz]: its latent [B,Cz,h,w] less the scales so
        far, whose sums are the transformer's `inputs` [B,L-1,Cz]. None without a render prior."""
        if self.prior is None:
            return None
        shrink = self.vqvae.quantizer.shrink
        whole = torch.cat([shrink(latent, grid) for grid in scales.grids], 1)
        return torch.cat((whole[:, :1], whole[:, 1:] - inputs), 1)[:, None]

    def logits(
        self,
        hidden: Tensor,
        labels: Tensor,
        rest: Tensor | None = None,
        scales: ScaleSchedule | None = None,
    ) -> Tensor:
        """Code logits [B,V,L,vocabulary] for the last block's output [B,V,L,C], labels [1 or
        B,V]; a render prior needs `rest` of the render, which is view 0, and the scales."""
        scale, shift = self.head_adaln(self.label(labels)).unsqueeze(-3).unbind(-2)
        hidden = modulate(hidden, scale, shift)
        logits = self.head(hidden)
        if self.prior is None:
            return logits
        lengths = scales.lengths
        at = F.pad(scale_of_tokens(lengths, self.device), (1, 0))
        codes = self.vqvae.quantizer.codebook.weight
        render = logits[:, :1] + self.prior.logits(hidden[:, :1], rest, codes, at)
        return torch.cat((render, logits[:, 1:]), 1)

    def refiner_condition(
        self, hidden: Tensor, indices: Tensor, rest: Tensor | None = None
    ) -> Tensor:
        """The refiner's condition of each token: from last-scale output [...,L,C], code indices
        [...,L] and, with a render prior, the last scale's `rest` [...,L,Cz] -> [...,L,C]."""
        codes = self.vqvae.quantizer.codebook(indices).to(hidden.dtype)
        condition = hidden + self.word(codes)
        if self.prior is not None:
            condition = condition + self.prior.word(rest.to(hidden.dtype))
        return self.refiner_norm(condition)

    # images ------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(
        self,
        f_hat: Tensor,
        render: Tensor | None = None,
        *,
        bridge: bool = False,
        guide: Tensor | None = None,
        alpha: Tensor | None = None,
    ) -> Tensor:
        """Images [B,3,H,W] in [-1,1] for f_hat [B,Cz,h,w], of any size; with `bridge` the render
        is fused in, and with `warped_references` the first of them, `guide`, too, and the
        render's `alpha` [B,1,H,W] in [-1,1] where the bridge reads that."""
        decoded = self.vqvae.decode(f_hat, render, bridge=bridge, guide=guide, alpha=alpha)
        return decoded.clamp(-1, 1).to(f_hat.dtype)

    def set_precision(self, dtype: torch.dtype) -> "GSVAR":
        """Cast the networks; the quantizer stays in float32 (or float64), since its sums must not
        drift, and so does the VQ-VAE under float16, whose range its decoder leaves."""
        self.to(dtype)
        exact = torch.promote_types(dtype, torch.float32)
        if dtype == torch.float16:
            self.vqvae.to(exact)
        for part in (self.vqvae.quantizer, self.vqvae.quant_conv, self.vqvae.post_quant_conv):
            part.to(exact)
        return self

    def compile_parts(self, mode: str | None = None) -> None:
        """torch.compile the transformer's blocks, one program for each scale's shape, and on a GPU
        the VQ-VAE and bridge (a CPU has kernels of its own there). The caller sees to it that
        torch keeps that many programs (`torch._dynamo.config.recompile_limit`)."""
        for block in self.transformer.blocks:
            block.compile(mode=mode, dynamic=False)
        if self.device.type != "cpu":
            self.vqvae.compile_parts(mode=mode, dynamic=False)


@lru_cache(maxsize=16)
def cached_rope(
    scales: ScaleSchedule, head_dim: int, extent: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """`rope_table` of a view's whole sequence: prefix grid, label, scales 1, 2, ..."""
    grids = (scales.latent, *scales.grids)
    return rope_table(grids, head_dim, extent).to(device, dtype)


@lru_cache(maxsize=16)
def scale_of_tokens(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """The scale of each token from scale 1 on, int64 [L-1]."""
    at = torch.arange(1, len(lengths))
    return at.repeat_interleave(torch.tensor(lengths[1:])).to(device)


@lru_cache(maxsize=16)
def block_mask(lengths: tuple[int, ...], views: int, ref_attends: str, device: torch.device):
    """The training mask for FlexAttention."""
    return views_by_scale(lengths, views, ref_attends).block_mask(device)
