# Stage 2, in image space: the bridge (and the decoder) learn to decode stage 1's latents.
from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor

from models.gsvar import GSVAR
from models.gsvar.restorer import Restorer
from models.vqvae.model import exact
from training.cache import Cache, fingerprint
from training.draws import Draws
from training.gsvar.stage import GSVARStage, drops_references
from training.losses import ImageObjective, harm
from training.stage import Losses
from training.triplets import Batch

REFINER_STEPS = 10
DECODING = ("vqvae.bridge.", "vqvae.decoder.", "vqvae.post_quant_conv.")  # not for restoring


class BridgeStage(GSVARStage):
    """The decoded picture's distance to the truth (GS-VAR's stage 2).

    Stage 1 is frozen; its latents are drawn by real inference, in the stage's precision. With
    `both_views` the references are decoded too, from their own tokens. With `own_tokens` stage 1
    is left out: what is decoded are the render's own tokens. `harm`: weight of what became worse.
    """

    def __init__(
        self,
        model: GSVAR,
        objective: ImageObjective,
        *,
        dtype: torch.dtype = torch.float32,
        train_decoder: bool = False,
        both_views: bool = False,
        drop_references: float = 0.0,
        own_tokens: bool = False,
        harm: float = 0.0,
        gram_from: int = 0,
        cache: Path | None = None,
    ):
        super().__init__(model, dtype, cache)
        self.stored: Cache | None = None
        self.both_views, self.drop_references = both_views, drop_references
        self.own_tokens, self.harm = own_tokens, harm
        self.gram_from, self.train_decoder = gram_from, train_decoder
        model.requires_grad_(False)
        model.vqvae.bridge.requires_grad_(True)
        if train_decoder:
            model.vqvae.decoder.requires_grad_(True)
            model.vqvae.post_quant_conv.requires_grad_(True)
        # in tuples: neither belongs to what is trained or saved
        frozen = model
        if dtype != torch.float32:
            frozen = copy.deepcopy(copy_for_restoring(model)).set_precision(dtype)
        self.frozen = (frozen,)
        self.objective = (objective,)
        self._restorer: Restorer | None = None

    def train(self, mode: bool = True) -> BridgeStage:
        """Stage 1 restores as it will later: without stochastic depth, whatever the mode."""
        return super().train(False)

    def forward(self, batch: Batch, network: str = "model", detail: bool = False) -> Losses:
        """loss and its parts (see ImageObjective), and harm where it has a weight."""
        model = self.model
        views = batch.views
        if drops_references(batch.step_seed, self.drop_references):
            views = views[:, :1]
        with torch.no_grad():
            f_hat = self.restored(batch, views)
            images, truths = views[:, 0], batch.truth
            guide = views[:, 1] if views.shape[1] > 1 else images
            alpha = batch.alpha
            if self.both_views and views.shape[1] > 1:
                guides = views[:, 1:].flatten(0, 1)
                f_hat = torch.cat((f_hat, model.vqvae.latent(guides)))
                images, truths = torch.cat((images, guides)), torch.cat((truths, guides))
                guide = torch.cat((guide, guides))
                alpha = torch.cat((alpha, torch.ones_like(guides[:, :1])))
        with self.autocast(model.device):
            features = model.vqvae.features(images, guide, alpha)
            decoded = model.vqvae.decode(f_hat, images, bridge=True, features=features)
        decoded = exact(decoded)
        generator = torch.Generator().manual_seed(batch.step_seed)
        with_gram = batch.step >= self.gram_from
        losses = self.objective[0](decoded, truths, generator, with_gram=with_gram)
        if self.harm:
            worse = harm(decoded, images, truths)
            losses |= {"loss": losses["loss"] + self.harm * worse, "harm": worse.detach()}
        return losses

    def restored(self, batch: Batch, views: Tensor) -> Tensor:
        """f_hat [B,Cz,h,w] of stage 1."""
        frozen = self.frozen[0]
        if self._restorer is None:  # by now the weights lie on their device
            self._restorer = Restorer(frozen)
        restorer = self._restorer

        def restore(places: list[int]) -> Tensor:
            part = views[places].to(frozen.word.weight.dtype)
            noise = Draws([batch.seeds[i] for i in places], views.device)

            def draw(k: int, shape: tuple[int, int]) -> Tensor:
                return noise.normal(shape[0] // len(places), shape[1]).flatten(0, 1)

            if self.own_tokens:
                return frozen.vqvae.quantized(part[:, 0], restorer.fit_scales(part).grids)
            guides = part[:, 1:] if part.shape[1] > 1 else None
            f_hat = restorer.restore(part[:, 0], guides, draw=draw, refiner_steps=REFINER_STEPS)
            return exact(f_hat)

        if self.cache is None or self.own_tokens:
            return restore(list(range(len(views))))
        if self.stored is None:
            named = fingerprint(frozen, self.dtype, REFINER_STEPS, without=DECODING)
            kind = f"restored-{named}"
            self.stored = Cache(self.cache, kind)
        names = [
            f"{sources}/{place}/{tuple(views.shape[1:])}"
            for sources, place in zip(batch.sources, batch.places, strict=True)
        ]
        return self.stored(names, restore, views.device)


def copy_for_restoring(model: GSVAR) -> GSVAR:
    """The model, its parameters shared, without what restoring does not need."""
    lean = copy.copy(model)
    lean._modules = dict(model._modules)
    vqvae = copy.copy(model.vqvae)
    vqvae._modules = {k: v for k, v in model.vqvae._modules.items() if k != "decoder"}
    vqvae._modules["bridge"] = None
    lean._modules["vqvae"] = vqvae
    return lean.eval()
