# Restoring renders: scale by scale with a preallocated K/V cache, the label-dependent AdaLN
# folded into tables.
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from models.gsvar import diffusion
from models.gsvar.memory import ReferenceMemory
from models.gsvar.model import GSVAR
from models.layers import winograd
from models.layers.blocks import modulate
from models.layers.slot_cache import SlotCache
from models.var import sampler
from models.var.scales import ScaleSchedule
from models.var.segments import RefAttends, Step, TokenSequence, views_by_scale
from models.var.transformer import Cached, Recording

Observer = Callable[[int, Tensor], None]
Draw = Callable[[int, tuple[int, int]], Tensor]


class Restorer:
    """Restores renders with a model, whose label-dependent modulations it computes once.

    Made when the weights are final and lie on their device: another one is needed after they
    changed or moved.
    """

    def __init__(self, model: GSVAR):
        self.model = model
        self._times: dict[int, Tensor] = {}
        winograd.forget(model)
        with torch.no_grad():
            self.tables = model.transformer.modulations(model.label.weight)  # each [labels,6,C]
            self.head_table = model.head_adaln(model.label.weight)  # [labels,2,C]

    # the token stream --------------------------------------------------------------------------

    def caches(
        self,
        batch: int,
        views: int,
        lengths: tuple[int, ...],
        memory: ReferenceMemory | None = None,
    ) -> list[Cached]:
        """A cache for each block: one for all views where they mix, one a view where they do not.

        `views` go through the blocks; a memory's references are seen where views mix.
        """
        config, weight = self.model.config, self.model.word.weight
        remembered = 0 if memory is None else memory.references
        caches = []
        for block, mixes in enumerate(self.model.transformer.mixes):
            rows, together = (batch, views + remembered) if mixes else (batch * views, 1)
            known = memory.segments(block, lengths) if mixes and remembered else {}
            sequence, steps = decoding(lengths, together, config.ref_attends, tuple(known))
            cache = SlotCache.empty(
                rows,
                config.heads,
                sequence.length,
                config.width // config.heads,
                weight.device,
                weight.dtype,
            )
            caches.append(Cached(cache, sequence, steps, mixes, known))
        return caches

    def step(
        self, x: Tensor, scale: int, caches: list[Cached], rope: Tensor, labels: Tensor
    ) -> Tensor:
        """One scale's tokens x [B,V,L,C] through all blocks; labels [V] of the views in x."""
        for cache in caches:
            cache.begin(scale)
        tables = [table[labels][None] for table in self.tables]
        return self.model.transformer(x, tables, rope, caches)

    def words(self, maps: Tensor, scale: int) -> Tensor:
        """Tokens [...,L,C] of a scale from its downsampled latent [...,L,Cz]."""
        model = self.model
        return model.word(maps.to(model.word.weight.dtype)) + model.scale_embedding.weight[scale]

    def reference_inputs(self, references: Tensor, scales: ScaleSchedule) -> list[Tensor]:
        """What references [B,R,3,H,W] feed at scales 1, 2, ...: [B,R,L,Cz] each, from their own
        tokens."""
        vqvae = self.model.vqvae
        tokens = vqvae.tokens(references.flatten(0, 1), scales.grids)
        inputs = vqvae.quantizer.inputs(tokens.indices, scales.grids)
        inputs = rearrange(inputs, "(b r) l z -> b r l z", b=references.shape[0])
        return list(inputs.split(scales.lengths[1:], 2))

    # public ------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_references(self, references: Tensor) -> ReferenceMemory:
        """Keys and values of references [B,R,3,H,W], to be used with any number of renders.

        Only with `ref_attends="self"`, where they see nothing but their own view; else ValueError.
        """
        model = self.model
        if model.config.ref_attends != "self":
            raise ValueError(
                'references are encoded ahead only with ref_attends="self", seeing themselves alone'
            )
        B, R = references.shape[:2]
        scales = self.fit_scales(references)
        lengths, rope = model.segment_lengths(scales), model.rope(scales)
        flat = references.reshape(B * R, 1, *references.shape[2:])
        labels = torch.ones(1, 1, dtype=torch.long, device=model.device)
        inputs = self.reference_inputs(flat, scales)  # known ahead: all scales go in one pass
        words = [self.words(part, scale) for scale, part in enumerate(inputs, 1)]
        x = torch.cat((model.prefix_tokens(flat, labels), *words), 2)
        attends = [Recording(lengths, "self", mixing=False) for _ in self.tables]
        model.transformer(x, [table[labels] for table in self.tables], rope, attends)
        blocks = tuple(
            (attend.keys.unflatten(0, (B, R)), attend.values.unflatten(0, (B, R)))
            if mixes
            else None
            for attend, mixes in zip(attends, model.transformer.mixes, strict=True)
        )
        return ReferenceMemory(blocks, B, R, tuple(references.shape[-2:]))

    @torch.no_grad()
    def restore(
        self,
        render: Tensor,
        references: Tensor | ReferenceMemory | None = None,
        *,
        sampling: sampler.Sampling = sampler.GREEDY,
        generator: torch.Generator | None = None,
        refiner: diffusion.Sampler | None = None,
        refiner_steps: int = 10,
        draw: Draw | None = None,
        observer: Observer | None = None,
    ) -> Tensor:
        """f_hat [B,Cz,h,w] (float32) of restored renders [B,3,H,W].

        `references` [B,R,3,H,W], R >= 0, or their `encode_references`. `sampling` says
        how tokens are chosen, by default the likeliest ones; they and the refiner (None: the
        config's `sampler`) draw from `generator`, or the refiner's draw number k is
        `draw(k, shape)`. `observer(scale, hidden)` sees the last block's output [B,V,L,C] at each
        scale. Raises ValueError for sizes the scales cannot take, and for guidance, which these
        networks have no condition for. Outputs of the network that are not finite make f_hat NaN.
        """
        if sampling.guidance:
            raise ValueError("GS-VAR has no unconditional branch to be guided away from")
        model, refiner = self.model, refiner or self.model.config.sampler
        quantizer, scales = model.vqvae.quantizer, self.fit_scales(render)
        lengths = model.segment_lengths(scales)
        ropes = model.rope(scales).split(lengths, 1)
        views, memory, inputs = self.views_of(render, references, scales)
        caches = self.caches(render.shape[0], views.shape[1], lengths, memory)
        labels = model.default_labels(views.shape[1])[0]
        latent = None if model.prior is None else model.vqvae.latent(render)
        last, rest = None, None

        def predict(state: sampler.State) -> Tensor:
            nonlocal last, rest
            scale = state.scale
            if latent is not None:
                left = latent if state.f_hat is None else latent - state.f_hat
                rest = quantizer.shrink(left, scales.grids[scale])
            if state.map is None:
                x = model.prefix_tokens(views, labels[None])
            else:
                maps = [state.map[:, None], *inputs[scale - 1 : scale]]
                x = self.words(torch.cat(maps, 1), scale)
                if rest is not None:
                    render_rest = model.prior.word(rest.to(x.dtype))
                    x = torch.cat((x[:, :1] + render_rest[:, None], x[:, 1:]), 1)
            hidden = self.step(x, scale, caches, ropes[scale], labels)
            if observer is not None:
                observer(scale, hidden)
            last = hidden[:, 0, -1:] if scale == 0 else hidden[:, 0]  # only the render is predicted
            return self.logits(last, rest, scale)

        f_hat, indices = sampler.decode(
            scales, quantizer, predict, sampling=sampling, generator=generator
        )
        # The likeliest of logits that are NaN is a token like any other: make the latent NaN too.
        f_hat = f_hat + 0 * last.float().sum((1, 2))[:, None, None, None]
        if refiner == "none":
            return f_hat
        condition = model.refiner_condition(last, indices[-1], rest).flatten(0, 1)
        residual = self.refine(
            condition, refiner=refiner, steps=refiner_steps, generator=generator, draw=draw
        )
        rows, columns = scales.latent
        return f_hat + rearrange(residual, "(b r c) z -> b z r c", r=rows, c=columns)

    def views_of(
        self,
        render: Tensor,
        references: Tensor | ReferenceMemory | None,
        scales: ScaleSchedule,
    ) -> tuple[Tensor, ReferenceMemory | None, list[Tensor]]:
        """The views [B,V,3,H,W] that go through the network, the memory of those that need not,
        and what the references among the views feed at scales 1, 2, ... (`reference_inputs`)."""
        views = render[:, None]
        if references is None or (isinstance(references, Tensor) and references.shape[1] == 0):
            return views, None, []
        if self.model.config.ref_attends == "self":
            if isinstance(references, Tensor):
                references = self.encode_references(references)
            batch, size = render.shape[0], tuple(render.shape[-2:])
            if references.batch not in (1, batch) or references.size != size:
                raise ValueError(
                    f"{references.batch} references of {references.size} for {batch} renders of "
                    f"{size}"
                )
            return views, references, []
        if not isinstance(references, Tensor):
            raise ValueError('a reference memory is of use only with ref_attends="self"')
        if references.shape[-2:] != render.shape[-2:]:
            raise ValueError("references and render must have the same size")
        inputs = self.reference_inputs(references, scales)
        return torch.cat((views, references), 1), None, inputs

    def logits(self, hidden: Tensor, rest: Tensor | None = None, scale: int = 0) -> Tensor:
        """Code logits [B,L,vocabulary] for the render's last output [B,L,C] at a scale; with a
        render prior, `rest` [B,L,Cz] at this scale."""
        model = self.model
        gain, shift = self.head_table[0]
        hidden = modulate(hidden, gain, shift)
        logits = model.head(hidden)
        if model.prior is not None:
            codes = model.vqvae.quantizer.codebook.weight
            at = torch.full((1,), scale, device=hidden.device)
            logits = logits + model.prior.logits(hidden, rest, codes, at)
        return logits

    def times(self, steps: int) -> Tensor:
        """The refiner's codes [steps, width] of the timesteps of so many steps."""
        if steps not in self._times:
            timesteps = diffusion.respaced_process(steps).t.to(self.model.device)
            self._times[steps] = self.model.refiner.embed_time(timesteps)
        return self._times[steps]

    def refine(
        self,
        condition: Tensor,
        *,
        refiner: diffusion.Sampler,
        steps: int,
        generator: torch.Generator | None = None,
        draw: Draw | None = None,
    ) -> Tensor:
        """The residual [N,Cz] (float32) to add to the last scale's codes, for conditions [N,C]."""
        model = self.model
        exact = torch.promote_types(condition.dtype, torch.float32)
        shape = condition.shape[0], model.config.latent_channels
        if draw is None:

            def draw(k: int, shape: tuple[int, int]) -> Tensor:
                return torch.randn(shape, generator=generator, device=condition.device, dtype=exact)

        condition = model.refiner.condition(condition)
        times = self.times(steps)

        def denoise(x: Tensor, i: int) -> Tensor:
            return model.refiner.denoise(x.to(condition.dtype), times[i : i + 1], condition)

        sample = diffusion.sample(
            denoise, steps=steps, sampler=refiner, draw=lambda k: draw(k, shape).to(exact)
        )
        return sample * diffusion.TARGET_SCALE

    # parts -------------------------------------------------------------------------------------

    def fit_scales(self, images: Tensor) -> ScaleSchedule:
        """The scales for images [...,H,W]."""
        stride = self.model.config.vqvae.stride
        height, width = images.shape[-2:]
        if height % stride or width % stride:
            raise ValueError(
                f"images must be multiples of {stride} pixels a side, not {height}x{width}"
            )
        return self.model.fit_scales(height // stride, width // stride)


@lru_cache(maxsize=32)
def decoding(
    lengths: tuple[int, ...], views: int, ref_attends: RefAttends, known: tuple[int, ...]
) -> tuple[TokenSequence, tuple[Step, ...]]:
    """The token sequence of some views and the steps of its decoding."""
    sequence = views_by_scale(lengths, views, ref_attends)
    return sequence, sequence.plan_decoding(known)
