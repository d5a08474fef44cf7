# Stage 0: the multi-scale VQ-VAE learns to encode pictures as tokens.
from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from models.gsvar import GSVAR
from models.vqvae.discriminator import Discriminator, hinge
from models.vqvae.model import exact
from runtime.seeds import mix_seeds
from training.distributed import rank, world_size
from training.draws import Draws
from training.gsvar.stage import GSVARStage
from training.losses import ImageObjective
from training.stage import Losses
from training.triplets import Batch

log = logging.getLogger(__name__)

EARLY = (1, 10, 30)  # steps after which a new tokenizer's codes are revived too
REPORTED = 100  # steps between two counts of the codes in use, where none are revived
SETTLED = 0.8  # share of the run after which codes are left alone
COLLAPSED = 0.1  # share of the codes: fewer in use are a warning
ENOUGH = 10  # vectors a code that tell whether it is in use


class TokenizerStage(GSVARStage):
    """Reconstruction, codebook and commitment losses (VAR, arXiv 2404.02905, section 3.2).

    `continuous` of the pictures are decoded from the latent itself, as the refiner will restore
    it. Codes that nobody used for `revive_every` steps (0: never) become vectors of the batch;
    those of a `new` tokenizer in its first steps too. With `gan` > 0 a patch discriminator joins
    from step `gan_from` on.
    """

    def __init__(
        self,
        model: GSVAR,
        objective: ImageObjective,
        *,
        total: float,
        dtype: torch.dtype = torch.float32,
        commitment: float = 0.25,
        continuous: float = 0.25,
        revive_every: int = 100,
        new: bool = True,
        gan: float = 0.0,
        gan_from: int = 0,
        seed: int = 0,
    ):
        super().__init__(model, dtype)
        self.total, self.commitment, self.continuous = total, commitment, continuous
        self.revive_every, self.early = revive_every, EARLY if new and revive_every else ()
        self.gan, self.gan_from, self.seed = gan, gan_from, seed
        model.requires_grad_(False)
        model.vqvae.requires_grad_(True)
        model.vqvae.quantizer.phis.requires_grad_(False)  # a short schedule leaves some unused
        for phi in model.vqvae.quantizer.used_phis(len(model.config.scales)):
            phi.requires_grad_(True)
        self.objective = (objective,)
        self.discriminator = Discriminator() if gan > 0 else None
        self.networks = ("model", "discriminator") if gan > 0 else ("model",)
        # no buffer: each process counts its own until they are summed
        self.hits = torch.zeros(model.config.vocabulary, device=model.device)
        self.counted: list[Tensor] = []  # of this step
        self.least_used = 2 * COLLAPSED  # share of the codes that was warned of last
        self.seen: Tensor | None = None
        self.decoded: Tensor | None = None

    def forward(self, batch: Batch, network: str = "model", detail: bool = False) -> Losses:
        """loss and its parts of the tokenizer (see ImageObjective), or the discriminator's."""
        if network == "discriminator":
            return self.discriminate(batch.truth)
        vqvae, grids = self.model.vqvae, self.model.config.scales.grids
        images = batch.truth
        with self.autocast(self.model.device):
            lowest = vqvae.encoder(images)
        latent = vqvae.quant_conv(exact(lowest))
        quantized = vqvae.quantizer.quantize(latent, grids)
        continuous = Draws(batch.seeds, images.device).uniform(1, 1, 1) < self.continuous
        f_hat = torch.where(continuous, latent, quantized.f_hat)
        with self.autocast(self.model.device):
            decoded = vqvae.decode(f_hat)
        decoded = exact(decoded)
        losses = self.objective[0](decoded, images)
        loss = losses["loss"] + quantized.codebook_loss
        loss = loss + self.commitment * quantized.commitment_loss
        losses["codebook"] = quantized.codebook_loss.detach()
        if self.discriminator is not None and batch.step >= self.gan_from:
            self.discriminator.requires_grad_(False)
            with self.autocast(self.model.device):
                adversarial = -exact(self.discriminator(decoded)).mean()
            self.discriminator.requires_grad_(True)
            loss = loss + self.gan * adversarial
            losses["adversarial"] = adversarial.detach()
            self.decoded = decoded.detach()
        indices = torch.cat([i.flatten() for i in quantized.indices])
        self.counted.append(indices.bincount(minlength=len(self.hits)).to(self.hits))
        self.seen = quantized.vectors.detach()
        return losses | {"loss": loss}

    def discriminate(self, images: Tensor) -> Losses:
        """The discriminator's turn, on the pictures decoded a moment ago."""
        with self.autocast(self.model.device):
            real, fake = self.discriminator(images), self.discriminator(self.decoded)
        loss = hinge(exact(real), exact(fake))
        return {"loss": loss, "discriminator": loss.detach()}

    def learns(self, network: str, step: int) -> bool:
        """The discriminator joins at `gan_from`."""
        return network == "model" or step >= self.gan_from

    @torch.no_grad()
    def after_step(self, step: int) -> dict[str, float]:
        """Revive dead codes when it is time; codes_used is the share of the codes in use."""
        for counts in self.counted:
            self.hits += counts
        self.counted.clear()
        done = step + 1
        if done not in self.early and done % (self.revive_every or REPORTED):
            return {}
        if world_size() > 1:
            dist.all_reduce(self.hits)
        dead = (self.hits == 0).nonzero().flatten().cpu()
        numbers = {"codes_used": 1 - len(dead) / len(self.hits)}
        if self.hits.sum() >= ENOUGH * len(self.hits):
            self.warn_of_collapse(len(self.hits) - len(dead), done)
        self.hits.zero_()
        if not self.revive_every or done > SETTLED * self.total:
            return numbers
        codes, seen = self.model.vqvae.quantizer.codebook.weight, self.seen
        if world_size() > 1:
            parts = [torch.empty_like(seen) for _ in range(world_size())]
            dist.all_gather(parts, seen)
            seen = torch.cat(parts)
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, 4, step))
        picked = torch.randperm(len(seen), generator=generator)[: len(dead)]
        codes[dead[: len(picked)]] = seen[picked.to(seen.device)].to(codes.dtype)
        return numbers

    def warn_of_collapse(self, used: int, done: int) -> None:
        """A line of the log where few codes are in use, and again where they are half as many."""
        count = len(self.hits)
        share, limit = used / count, self.least_used / 2
        if share >= limit:
            return
        self.least_used = share
        revive = "" if self.revive_every else f"--revive_every={REPORTED} (replaces unused codes), "
        log.warning(
            "the codebook is collapsing: %d of %d codes (%.1f %%) are in use at step %d; try "
            "%sa lower --tblr, a larger --batch_size or --commitment=1",
            *(used, count, 100 * share, done, revive),
        )

    def resume_state(self) -> dict[str, object]:
        """The discriminator, and how often each code was used since it was last looked at."""
        hits = self.hits.clone()
        if world_size() > 1:
            dist.all_reduce(hits)
        state = None if self.discriminator is None else self.discriminator.state_dict()
        return {"hits": hits.cpu(), "discriminator": state}

    def load_resume_state(self, state: Mapping) -> None:
        """Put back what `resume_state` gave; the hits go to the first process."""
        hits = state["hits"]
        self.hits.copy_(hits if rank() == 0 else torch.zeros_like(hits))
        if self.discriminator is not None and state["discriminator"] is not None:
            self.discriminator.load_state_dict(state["discriminator"])
