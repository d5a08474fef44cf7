# Stage 1, in latent space: transformer and refiner learn to predict the ground truth's tokens.
from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from models.gsvar import GSVAR, diffusion, loading
from models.var.scales import ScaleSchedule
from models.vqvae.model import exact
from training.cache import Cache, fingerprint
from training.draws import Draws
from training.gsvar.stage import GSVARStage, drops_references
from training.stage import Losses
from training.triplets import Batch

NEIGHBOURS = 8  # codes that a corrupted token may become


class LatentStage(GSVARStage):
    """Cross-entropy of the tokens and the refiner's diffusion loss (GS-VAR's stage 1).

    The VQ-VAE is frozen and always in float32. `drop_references` of the steps are without them,
    as an inference without references is. `corrupt` is the share of given tokens replaced by
    similar ones. With `both_views` references are predicted too.
    """

    def __init__(
        self,
        model: GSVAR,
        *,
        dtype: torch.dtype = torch.float32,
        label_smoothing: float = 0.0,
        diffusion_weight: float = 2.0,
        diffusion_repeats: int = 4,
        both_views: bool = False,
        drop_references: float = 0.0,
        corrupt: float = 0.0,
        cache: Path | None = None,
    ):
        super().__init__(model, dtype, cache)
        self.stored: Cache | None = None
        self.sharded = False
        self.label_smoothing, self.both_views = label_smoothing, both_views
        self.diffusion_weight, self.diffusion_repeats = diffusion_weight, diffusion_repeats
        self.drop_references, self.corrupt = drop_references, corrupt
        self.neighbours: Tensor | None = None
        if both_views and model.prior is not None:
            raise ValueError("a render prior is of the render alone: leave --use_ref_view_loss off")
        model.vqvae.requires_grad_(False)
        if model.config.sampler == "none":
            for part in (model.refiner, model.refiner_norm):
                part.requires_grad_(False)

    # a model that is divided among processes ---------------------------------------------------

    def shard(self) -> None:
        """Divide the transformer block by block (FSDP2); the VQ-VAE, which is frozen, stays
        whole."""
        from torch.distributed.fsdp import fully_shard

        for parameter in self.parameters():  # channels-last ones cannot be divided
            parameter.data = parameter.data.contiguous()
        for block in self.model.transformer.blocks:
            if hasattr(block, "adaln"):  # its own unit: it is called before the block is
                fully_shard(block.adaln)
            fully_shard(block)
        fully_shard(self, ignored_params=set(self.model.vqvae.parameters()))
        self.sharded = True

    def whole_model(self) -> GSVAR:
        """The model; where it is sharded a copy with all weights."""
        if not self.sharded:
            return self.model
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        state = get_model_state_dict(self, options=StateDictOptions(full_state_dict=True))
        model = loading.empty(self.model.config, bridge=self.model.has_bridge)
        own = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
        model.load_state_dict(own, assign=True)
        return model.eval().requires_grad_(False)

    # losses ------------------------------------------------------------------------------------

    def forward(self, batch: Batch, network: str = "model", detail: bool = False) -> Losses:
        """loss, cross_entropy, diffusion (with a refiner), with `detail` the tokens' accuracies."""
        model = self.model
        draws = Draws(batch.seeds, model.device)
        views = batch.views
        if drops_references(batch.step_seed, self.drop_references):
            views = views[:, :1]
        scales = self.fit_scales(views)
        V, predicted = views.shape[1], views.shape[1] if self.both_views else 1
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            latents, render = self.latents(batch, views)
            indices, residuals, inputs = self.targets(latents, scales, draws)
            rest = None if render is None else model.rest(render, inputs[:, 0], scales)
        labels = model.default_labels(V)
        with self.autocast(model.device):
            drop_path_noise = draws.uniform(model.config.depth, 2)
            hidden = model(views, inputs, labels, drop_path_noise, rest)[:, :predicted]
            logits = model.logits(hidden, labels[:, :predicted], rest, scales)
        indices, residuals = indices[:, :predicted], residuals[:, :predicted]
        entropy = F.cross_entropy(
            exact(logits.flatten(0, 2)),
            indices.flatten(),
            label_smoothing=self.label_smoothing,
        )
        last = scales.lengths[-1]
        losses = {"loss": entropy, "cross_entropy": entropy.detach()}
        if model.config.sampler != "none":
            guess = logits[:, :, -last:].detach().argmax(-1)
            codes = model.vqvae.quantizer.codebook(guess)
            target = (residuals - codes) / diffusion.TARGET_SCALE
            left = None if rest is None else rest[:, :, -last:]
            refining = self.refining(hidden[:, :, -last:], guess, target, left, draws)
            losses["loss"] = entropy + self.diffusion_weight * refining
            losses["diffusion"] = refining.detach()
        if detail:
            right = (logits.argmax(-1) == indices).float()
            losses["accuracy"] = right.mean()
            losses["accuracy_last"] = right[..., -last:].mean()
        return losses

    def refining(
        self, hidden: Tensor, guess: Tensor, target: Tensor, rest: Tensor | None, draws: Draws
    ) -> Tensor:
        """The refiner's loss for last outputs [B,V,L,C], guessed codes, residuals [B,V,L,Cz] and,
        with a render prior, its `rest` [B,1,L,Cz]."""
        model, shape = self.model, (self.diffusion_repeats, *target.shape[1:])
        with self.autocast(model.device):
            condition = model.refiner_condition(hidden, guess, rest)
        steps = draws.integers(diffusion.TRAIN_STEPS, *shape[:-1]).flatten()
        noise = draws.normal(*shape).flatten(0, -2)
        x0 = repeat_samples(target, self.diffusion_repeats)
        x = diffusion.training_process().noised(x0, steps, noise)
        with self.autocast(model.device):
            known = repeat_samples(model.refiner.condition(condition), self.diffusion_repeats)
            output = model.refiner.denoise(x, model.refiner.embed_time(steps), known)
        squared, bound = diffusion.losses(exact(output), x0, x, steps, noise)
        return (squared + bound).mean()

    def fit_scales(self, views: Tensor) -> ScaleSchedule:
        """The schedule of scales for views [B,V,3,H,W]."""
        stride = self.model.config.vqvae.stride
        return self.model.fit_scales(*(n // stride for n in views.shape[-2:]))

    def latents(self, batch: Batch, views: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents of the truth and of the references [B,V,Cz,h,w], and for a render prior the
        render's [B,Cz,h,w]."""
        prior, shown = self.model.prior is not None, views.shape[1]
        images = torch.cat((batch.truth[:, None], views[:, 1:]), 1)
        if prior:
            images = torch.cat((images, views[:, :1]), 1)
        V = images.shape[1]

        def encode(places: list[int]) -> Tensor:
            return self.model.vqvae.latent(images.flatten(0, 1)[places])

        if self.cache is None:
            latents = encode(list(range(len(images) * V)))
        else:
            if self.stored is None:
                kind = f"latents-{fingerprint(self.model.vqvae)}"
                self.stored = Cache(self.cache, kind)
            names = [
                f"{source}/{place}/{tuple(images.shape[-2:])}"
                for sources, place in zip(batch.sources, batch.places, strict=True)
                for source in (*sources[:shown], *sources[-1:])[:V]
            ]
            latents = self.stored(names, encode, self.model.device)
        latents = rearrange(latents, "(b v) c h w -> b v c h w", v=V)
        return latents[:, :shown], latents[:, -1] if prior else None

    def targets(
        self, latents: Tensor, scales: ScaleSchedule, draws: Draws
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token indices [B,V,L], last residuals [B,V,l,Cz] and inputs [B,V,L-1,Cz]."""
        quantizer = self.model.vqvae.quantizer
        B, V = latents.shape[:2]

        def corrupted(scale: int, indices: Tensor) -> Tensor:
            """Some of the render view's codes, [(B V),L], changed to neighbours."""
            own = indices.view(B, V, -1)
            changed = draws.uniform(own.shape[-1]) < self.corrupt
            which = draws.integers(self.neighbours.shape[1], own.shape[-1])
            other = self.neighbours[own[:, 0]].gather(-1, which[..., None])[..., 0]
            render = torch.where(changed, other, own[:, 0])
            return torch.cat((render[:, None], own[:, 1:]), 1).view_as(indices)

        if self.corrupt > 0 and self.neighbours is None:
            self.neighbours = quantizer.neighbours(NEIGHBOURS)
        tokens = quantizer.encode(
            latents.flatten(0, 1), scales.grids, corrupted if self.corrupt > 0 else None
        )
        inputs = quantizer.inputs(tokens.context, scales.grids)
        parts = torch.cat(tokens.indices, 1), tokens.residual, inputs
        indices, residuals, inputs = (part.unflatten(0, (B, V)) for part in parts)
        return indices, residuals, inputs


def repeat_samples(x: Tensor, times: int) -> Tensor:
    """[B,...,C] as [B*times*..., C], each sample `times` times."""
    return x[:, None].expand(-1, times, *x.shape[1:]).flatten(0, -2)
