# What test_tile.py and test_varsr.py do with their flags, which are training.flags.TestFlags (this
# room does not import that one).
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from fixers import testing
from fixers.fixer import Fixer
from fixers.registry import load
from models.gsvar import loading
from runtime.arguments import naming_flags
from runtime.command import choose_device
from runtime.shards import Shard
from triplets.guides import Guides
from triplets.manifest import Triplet

DEFAULT_VQVAE = Path("checkpoints/VQVAE.pth")


def test(flags: Any, triplets: Sequence[Triplet], *, mode: str, suffix: str) -> None:
    """Test what the flags name; `mode` where they do not, `suffix` is put behind the experiment's
    name.

    Raises ValueError and OSError, in one sentence, for what the user can mend.
    """
    fixing, results = flags.fixing, flags.results
    triplets = chosen(flags, triplets)
    tested = Tested(flags, fixing.mode or mode)
    guides = tested.guides
    testing.check(triplets, guides)
    device = choose_device(fixing.device)
    experiment, stamp = tested.origin()
    folder = results.testset_path / "VARPrediction" / f"{experiment}{suffix}" / stamp
    testing.run(
        triplets,
        testing.Folders(results.testset_path, folder),
        tested.fixer(device) if results.gen_img else None,
        device=device,
        lpips_net=results.lpips_net,
        metric_space=results.metric_space,
        guides=guides,
        at_a_time=fixing.batch_size if tested.mode == "resize" else 1,
        resume=results.resume,
        shard=None if results.shard is None else Shard.parse(results.shard),
        made_with=tested.made_with() if results.gen_img else {},
        settings=asdict(flags) | {"mode": tested.mode, "device": str(device)},
        title=f"{experiment} on {Path(flags.data.json_path.split(',')[0]).stem}",
    )


def chosen(flags: Any, triplets: Sequence[Triplet]) -> Sequence[Triplet]:
    """The entries to test. Raises ValueError if none is left or a reference is missing."""
    limit = flags.results.eval_img_num
    if limit is not None and limit < 1:
        raise ValueError(f"--eval_img_num must be at least 1, not {limit}")
    if flags.data.num_refs < 1:
        raise ValueError(f"--num_refs must be at least 1, not {flags.data.num_refs}")
    if flags.fixing.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, not {flags.fixing.batch_size}")
    triplets = triplets[:limit]
    lacking = [t.key for t in triplets if not t.references]
    if lacking and flags.data.use_ref and flags.fixing.fixer == "gsvar":
        raise ValueError(
            f"{flags.data.json_path}: {len(lacking)} of {len(triplets)} entries have no reference "
            f"(ref_image or ref), first {lacking[0]!r}: give them, or --use_ref=False"
        )
    return triplets


class Tested:
    """The fixer that the flags name."""

    def __init__(self, flags: Any, mode: str):
        self.flags, self.mode = flags, mode

    @cached_property
    def told(self) -> dict:
        """What the weights' file tells of itself."""
        return loading.inspect(self.flags.weights.var_test_path)

    @cached_property
    def guides(self) -> Guides:
        """The references it looks at; warped ones, if the flags do not tell, where the weights
        were made for them."""
        data, warped = self.flags.data, self.flags.data.use_warped
        told = self.flags.fixing.fixer == "gsvar" and self.flags.weights.var_test_path.is_file()
        if warped is None and data.use_ref and told:
            warped = self.told["config"].get("warped_references")
        alpha = told and bool(self.told["config"].get("render_alpha"))
        return Guides(data.num_refs if data.use_ref else 0, bool(warped), alpha)

    def origin(self) -> tuple[str, str]:
        """The experiment and <epoch>_<iter>, as the original names its folders."""
        results = self.flags.results
        given = {"epoch": results.epoch, "iteration": results.iter}
        name = self.flags.fixing.fixer
        if name == "gsvar":
            name = self.flags.weights.var_test_path.resolve().parent.name
            if None in given.values():
                told = self.told
                given = {k: told.get(k) if v is None else v for k, v in given.items()}
        return name, "_".join(str(value or 0) for value in given.values())

    def made_with(self) -> dict[str, object]:
        """What the predictions depend on, by flag."""
        weights, fixing = self.flags.weights, self.flags.fixing
        data = self.flags.data
        told = {"fixer": fixing.fixer, "use_ref": data.use_ref, "num_refs": data.num_refs}
        told["use_warped"] = self.guides.warped
        if fixing.fixer != "gsvar":
            return told
        files = (weights.var_test_path, weights.vae_model_path)
        told["weights"] = [f and [str(f), f.stat().st_size, f.stat().st_mtime] for f in files]
        told |= {"mode": self.mode, "use_bridge": weights.use_bridge, "use_lora": weights.use_lora}
        told["fusion_block_idx"] = weights.fusion_block_idx
        names = ("colour", "refiner", "refiner_steps", "seed", "dtype")
        return told | {name: getattr(fixing, name) for name in names}

    def fixer(self, device: object) -> Fixer:
        """Loaded; raises what the loading raises."""
        weights, fixing = self.flags.weights, self.flags.fixing
        if fixing.fixer != "gsvar":
            return load(fixing.fixer)
        vqvae = weights.vae_model_path
        if vqvae is None and DEFAULT_VQVAE.is_file():
            parts = self.told["parts"]
            if not any(part.startswith(("vae_local", "vqvae")) for part in parts):
                vqvae = DEFAULT_VQVAE
        flags = {"vqvae": "--vae_model_path", "base": "--var_pretrain_path", "depth": "--depth"}
        with naming_flags(**flags):
            return load(
                "gsvar",
                checkpoint=weights.var_test_path,
                vqvae=vqvae,
                base=weights.var_pretrain_path if weights.use_lora else None,
                depth=weights.depth,
                mixing_blocks=weights.fusion_block_idx,
                mode=self.mode,
                bridge=weights.use_bridge,
                colour=fixing.colour,
                refiner=fixing.refiner,
                refiner_steps=fixing.refiner_steps,
                batch_size=fixing.batch_size,
                seed=fixing.seed,
                device=device,
                dtype=fixing.dtype,
            )
