# The command line of reconstruction/, with the flags of gsplat's and Difix3D's trainers:
#   python -m examples.gsplat.simple_trainer_difix3d default --data_dir CAPTURE --no-fix
from __future__ import annotations

import logging
import sys
from dataclasses import fields
from pathlib import Path

if not __package__:  # run as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import reconstruction
from reconstruction import FixConfig
from runtime.command import choose_device, run_command
from runtime.files import make_writable_folder
from runtime.lock import locked_folder

log = logging.getLogger(__name__)


def main() -> None:
    """Reconstruct a capture as the command line says."""
    from examples.gsplat.flags import parse_flags, say_what_is_idle

    flags = parse_flags()
    from evaluation.backbones.features import check_folder
    from examples.gsplat.inputs import load_generator, load_scene_of, load_start
    from reconstruction.rounds.settings import original
    from reconstruction.warm_up import OPTIMISATION
    from runtime.kernels import compile_ahead

    device, fixing = choose_device(flags.device), flags.fixing
    if flags.evaluation.backbones is not None:
        check_folder(flags.evaluation.backbones)
    if fixing.control and not fixing.fix:
        log.warning("--control is ignored: with --no-fix the run is its own control")
    if not fixing.fix or flags.eval_only:
        warn_of_rounds(flags.rounds, "--eval_only" if flags.eval_only else "--no-fix")
    say_what_is_idle(flags, device)
    if not flags.disable_viewer:
        from runtime.ports import LOCAL, check_port
        from splats.view.show import show

        check_port(LOCAL, flags.port)
    if device.type == "cpu" and not flags.eval_only:
        compile_ahead(*OPTIMISATION)  # while photos are read
    rounds = original(flags.rounds) if fixing.schedule == "original" else flags.rounds
    fixes = fixing.fix and not flags.eval_only
    generator = load_generator(flags, rounds, device) if fixes else None
    start = load_start(flags)
    with locked_folder(flags.result_dir, "choose another --result_dir"):
        pass  # or whoever waited for the photos would be told after that
    scene = load_scene_of(start, flags, device)
    make_writable_folder(flags.result_dir)
    if flags.eval_only:
        reconstruction.evaluate_only(
            scene, start, flags.optimisation, flags.evaluation, flags.result_dir, device
        )
    else:
        reconstruction.optimise(
            scene,
            flags.optimisation,
            result_dir=flags.result_dir,
            device=device,
            start=start,
            resume=flags.resume,
            evaluation=flags.evaluation,
            generator=generator,
            fixing=rounds,
            control=fixing.control,
        )
    report = flags.result_dir / "report" / "index.html"
    if report.exists():
        log.info("report: %s", report)
    else:
        log.info("nothing was evaluated; the splats are in %s", flags.result_dir)
    if not flags.disable_viewer:
        show(flags.result_dir, host=LOCAL, port=flags.port)


def warn_of_rounds(rounds: FixConfig, because: str) -> None:
    """A line that names the flags of rounds that were given in vain, and the flag that made them
    so."""
    idle = [f.name for f in fields(rounds) if getattr(rounds, f.name) != f.default]
    idle = [f"--{name}" for name in idle if (name, rounds.post) != ("post", "never")]
    if idle:
        log.warning("without effect with %s: %s", because, ", ".join(idle))


if __name__ == "__main__":
    run_command(main)
