# Going on with the run in a result folder: there may be none, a stopped one, a finished one, or
# somebody else's.
from __future__ import annotations

import json
import logging
from typing import Any

import torch

from reconstruction.config import Config, flatten
from reconstruction.result import ResultFolder
from reconstruction.rounds.record import rounds_from_json
from reconstruction.state import History, State
from splats.formats import checkpoint

log = logging.getLogger(__name__)

# These change what is shown, not what comes out.
FREE = {"eval_steps", "save_steps", "save_every_seconds", "lpips_net", "save_video"}
FREE |= {"backbones", "render_traj_path", "device", "transform"}
FREE |= {"save_ply", "ply_steps", "compression", "tb_every", "tb_save_image"}
FREE |= {"use_color_correction_metric", "color_correct_method"}


def resume_run(
    state: State, folder: ResultFolder, settings: dict[str, Any], first: int, last: int
) -> None:
    """Put `state` where the run in `folder` stopped; leave it alone if there is none.

    first, last: steps before and after the whole run. ValueError if the folder holds a run with
    other settings, or checkpoints that cannot be continued.
    """
    folder.clear_unfinished()
    if folder.resume.exists():
        saved = checkpoint.load(folder.resume)
        _check_settings(folder, saved, settings)
        state.load(folder.resume, saved)
        log.info("resuming after step %d of %d", state.done, last)
        return
    done = {step: path for step, path in folder.checkpoints().items() if step >= first}
    if not done:
        return
    step, path = max(done.items())
    saved = checkpoint.load(path)
    _check_settings(folder, saved, settings)
    if step != last - 1:
        raise ValueError(
            f"{folder.path} holds checkpoints, but no state to resume from; continue with "
            f"--ckpt {path}, start over with --no-resume, or choose another --result_dir"
        )
    splats, _ = checkpoint.parse(path, saved)
    for name, value in splats.items():
        state.splats[name] = torch.nn.Parameter(value.to(state.splats[name].device))
    state.history = History.from_checkpoint(saved)
    state.distillation.rounds = rounds_from_json(json.loads(saved.get("rounds", "[]")))
    state.done = last
    log.info("finished already, after step %d: only evaluating again", last)


def take_fork(state: State, folder: ResultFolder, settings: dict[str, Any]) -> None:
    """Go on from the control's state at the first round, if it was made with the same settings."""
    if not folder.fork.exists():
        return
    saved = checkpoint.load(folder.fork)
    theirs, ours = json.loads(saved["settings"]), json.loads(json.dumps(settings))
    if any(theirs.get(key) != value for key, value in ours.items() if key not in FREE):
        return
    state.load(folder.fork, saved)
    log.info("up to step %d as without fixing", state.done)


def _check_settings(folder: ResultFolder, saved: dict, settings: dict[str, Any]) -> None:
    """ValueError, naming the settings that differ, unless the saved run had the same ones."""
    ways = "start over with --no-resume, or choose another --result_dir"
    if not isinstance(saved.get("settings"), str):
        raise ValueError(f"{folder.path} holds checkpoints of something else; {ways}")
    new = json.loads(json.dumps(settings))
    try:
        old = dict(json.loads(saved["settings"]))
    except (ValueError, TypeError):
        raise ValueError(f"{folder.path} holds a damaged checkpoint; {ways}") from None
    # a run of an earlier version lacks settings, but none of its strategy
    old = {key: value for key, value in flatten(Config()).items() if "." not in key} | old
    for values in (old, new):
        if "fixer" in values:  # not said while there was no other generator
            values.setdefault("generator", "render_then_fix")
    differing = [
        f"--{key} was {old.get(key)}, now {new.get(key)}"
        for key in dict.fromkeys((*new, *old))
        if key not in FREE and old.get(key) != new.get(key)
    ]
    if differing:
        shown = "; ".join(differing[:4]) + ("; ..." if len(differing) > 4 else "")
        raise ValueError(
            f"{folder.path} holds a run with other settings ({shown}); "
            f"repeat them to resume, {ways}"
        )
