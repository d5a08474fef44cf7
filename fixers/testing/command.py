# What test_tile.py and test_varsr.py do with their flags.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property
from pathlib import Path

from fixers.fixer import Fixer
from fixers.registry import FIXERS
from fixers.testing import run
from fixers.testing.flags import FLAGS, TestFlags
from runtime.command import choose_device
from runtime.shards import Shard
from triplets import manifest
from triplets.guides import Guides
from triplets.manifest import Triplet


def test(flags: TestFlags, *, mode: str, suffix: str) -> None:
    """Test what the flags name; `mode` where they do not, `suffix` is put behind the experiment's
    name.

    Raises ValueError and OSError, in one sentence, for what the user can mend.
    """
    tested = TestedFixer(flags, mode)
    triplets = select_triplets(flags, tested)
    run.check_triplets(triplets, tested.guides)
    results, device = flags.results, choose_device(flags.fixing.device)
    experiment = tested.experiment
    folder = results.testset_path / "VARPrediction" / f"{experiment}{suffix}" / tested.stamp
    run.test_fixer(
        triplets,
        run.Folders(results.testset_path, folder),
        tested.build(device) if results.gen_img else None,
        device=device,
        lpips_net=results.lpips_net,
        backbones=results.backbones,
        metric_space=results.metric_space,
        guides=tested.guides,
        holes=flags.data.holes,
        at_a_time=getattr(tested.options, "batch_size", 1) if tested.mode == "resize" else 1,
        resume=results.resume,
        shard=None if results.shard is None else Shard.parse(results.shard),
        made_with=tested.describe() if results.gen_img else {},
        settings=tested.settings() | {"mode": tested.mode, "device": str(device)},
        title=f"{experiment} on {Path(flags.data.json_path.split(',')[0]).stem}",
    )


def select_triplets(flags: TestFlags, tested: TestedFixer) -> Sequence[Triplet]:
    """The entries to test. Raises ValueError if none is left or a reference is missing."""
    limit = flags.results.eval_img_num
    if limit is not None and limit < 1:
        raise ValueError(f"--limit (--eval_img_num) must be at least 1, not {limit}")
    if flags.data.num_refs < 1:
        raise ValueError(f"--num_refs must be at least 1, not {flags.data.num_refs}")
    triplets = manifest.read(
        flags.data.json_path, ("val", "test"), root=flags.results.testset_path
    )[:limit]
    lacking = [t.key for t in triplets if not t.references]
    if lacking and flags.data.use_ref and tested.needs.references:
        raise ValueError(
            f"{flags.data.json_path}: {len(lacking)} of {len(triplets)} entries have no reference "
            f"(ref_image or ref), first {lacking[0]!r}: give them, or --use_ref=False"
        )
    return triplets


class TestedFixer:
    """The fixer that the flags name, and what is known of it before it is built."""

    def __init__(self, flags: TestFlags, mode: str):
        self.flags, given = flags, flags.choose_options()
        if hasattr(given, "mode") and flags.fixing.mode is None:
            given = replace(given, mode=mode)
        self.given, self.options = given, given.with_local_files()

    @cached_property
    def needs(self):
        """What the fixer makes use of (`fixers.Needs`)."""
        return self.options.needs()

    @property
    def mode(self) -> str | None:
        """How pictures are brought to the network's size, for fixers that have modes."""
        return getattr(self.options, "mode", None)

    @property
    def guides(self) -> Guides:
        """What it is given beside the renders; references warped, if the flags do not say, where
        the weights were made for those."""
        data = self.flags.data
        warped = data.use_warped
        if warped is None:
            warped = data.use_ref and self.needs.warped
        return Guides(data.num_refs if data.use_ref else 0, warped, self.needs.alpha)

    @property
    def experiment(self) -> str:
        """The folder of the weights, as in the original, or the fixer's name."""
        weights = getattr(self.options, "checkpoint", None)
        return self.flags.fixing.fixer if weights is None else weights.resolve().parent.name

    @property
    def stamp(self) -> str:
        """<epoch>_<iter> of the weights, as the original names its folders."""
        given = (self.flags.results.epoch, self.flags.results.iter)
        if None in given:
            progress = self.options.progress()
            given = (g if p is None else p for g, p in zip(progress, given, strict=True))
        return "_".join(str(value or 0) for value in given)

    def describe(self) -> dict[str, object]:
        """What the predictions depend on, by flag; files with size and time."""
        data, weights = self.flags.data, self.flags.weights
        made_with = {"fixer": self.flags.fixing.fixer, "use_ref": data.use_ref}
        made_with |= {"num_refs": data.num_refs, "use_warped": self.guides.warped}
        if self.needs.alpha:
            made_with["holes"] = data.holes
        decisive = self.given.decisive()
        if "checkpoint" in decisive:
            files = [self.options.checkpoint]
            if "vqvae" in decisive:
                files.append(decisive["vqvae"])
            made_with["weights"] = [f and [str(f), *stat_file(f)] for f in files]
        if "base" in decisive:
            made_with["use_lora"] = weights.use_lora
        others = decisive.keys() - {"checkpoint", "vqvae", "base"}
        return made_with | {FLAGS.flag(name): decisive[name] for name in decisive if name in others}

    def settings(self) -> dict[str, dict]:
        """The flags by group, those of the fixer with the values that they have in the end."""
        groups = {f.name: asdict(getattr(self.flags, f.name)) for f in fields(self.flags)}
        flags = {FLAGS.flag(f.name): getattr(self.options, f.name) for f in fields(self.options)}
        for name in ("weights", "fixing"):
            groups[name] = {k: flags.get(k, v) for k, v in groups[name].items()}
        return groups

    def build(self, device: object) -> Fixer:
        """The fixer on a device; raises what loading its weights raises."""
        base = {"base": "--var_pretrain_path"}
        with FLAGS.naming(**base):
            return FIXERS[self.flags.fixing.fixer][1](self.options, device)


def stat_file(file: Path) -> tuple[int, float]:
    """Size and time of a file: another content has others. Raises OSError."""
    return file.stat().st_size, file.stat().st_mtime
