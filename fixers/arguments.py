# The arguments of `python -m fixers`.
from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fixers.fixer import Fixer, FixerOptions
from fixers.flags import FixerName, OptionFlags, describe_fixers, list_options
from fixers.registry import FIXERS
from runtime.command import choose_device
from runtime.flags import parse_command

log = logging.getLogger(__name__)

FLAG = tyro.conf.FlagCreatePairsOff
IGNORED = ("prompt", "timestep", "model_name", "test_speed", "warmup_iters")  # of Difix3D and Fixer
FLAGS = OptionFlags(
    aliases={"checkpoint": ("model_path",)},
    opposites={"bridge": "no_bridge"},
    defaults={"dtype": "auto"},
    switches=True,
)
Fixing = FLAGS.make_group(
    "Fixing", "Options of the fixers, each with those that have it.", list_options()
)


@dataclass(frozen=True)
class Arguments:
    """Fix a picture, a folder of pictures or a video, guided by reference photos.

    Examples:

      python -m fixers renders/

      python -m fixers render.png --reference photo.jpg --checkpoint vae-ckpt-last.pth

      python -m fixers renders/ --reference photos/ --checkpoint model.safetensors

      python -m fixers flight.mp4 --fixer classical

    Pictures keep their names (as .png) below --output_dir. The flags of Difix3D's and Fixer's
    commands are understood: --input_image, --input, --ref_image, --model_path, --output, --video,
    --save_video, --max_frames, --skip_frames, --height, --width.
    """

    path: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FILE_OR_FOLDER_OR_VIDEO")
    ] = None
    """A picture, a folder of them, or a video."""
    reference: Annotated[Path | None, tyro.conf.arg(aliases=["--ref_image"])] = None
    """One photo for all, or a folder of photos, paired by name."""
    warped: Annotated[bool, FLAG] = False
    """The references lie in the pictures' own views, black where they have nothing to show, as
    gen_data's warped/: what the weights that come with this project want."""
    alpha: Path | None = None
    """Grey pictures of the renders' opacity, or a folder of them, paired by name: what is black
    because nothing is there (default: the pictures' own transparency, where they have one)."""
    holes: Literal["none", "auto"] = "none"
    """Of pictures without alpha: none, they are opaque; or auto, large regions that are black
    throughout are taken for holes, which unlit parts of a scene may be, too."""
    output_dir: Annotated[Path, tyro.conf.arg(aliases=["--output"])] = Path("output")
    """Where the fixed pictures go."""
    fixer: Annotated[FixerName, tyro.conf.arg(help=describe_fixers())] = "gsvar"
    fixing: Annotated[Fixing, tyro.conf.arg(name="")] = field(default_factory=Fixing)
    device: str | None = None
    """cuda, cpu, ... (default: a GPU if there is one)."""
    height: int | None = None
    """Squash pictures to this height first and back after (default: their own size)."""
    width: int | None = None
    """The same for the width."""
    compare: Annotated[bool, FLAG] = False
    """Also write picture, reference and result side by side, to compare/."""
    resume: Annotated[bool, FLAG] = False
    """Leave out pictures whose result is there already."""
    video: Annotated[bool, FLAG, tyro.conf.arg(aliases=["--save_video"])] = False
    """Also write the results as output.mp4 (a video in always gives one)."""
    max_frames: int | None = None
    """No more pictures or frames than this."""
    skip_frames: int = 0
    """Leave out this many at the start."""

    @property
    def frames(self) -> slice:
        """Those pictures or frames that are fixed."""
        stop = None if self.max_frames is None else self.skip_frames + self.max_frames
        return slice(self.skip_frames, stop)

    def choose_options(self) -> FixerOptions:
        """The options of the chosen fixer. Raises ValueError for those of others."""
        return FLAGS.choose_options(self.fixer, self.fixing)

    def build_fixer(self) -> Fixer:
        """The chosen fixer. Raises what loading its weights raises."""
        with FLAGS.naming():
            return FIXERS[self.fixer][1](self.choose_options(), self.device)


ALIASES = ("ref_image", "output", "save_video", "input", "input_image", *IGNORED)
FLAGS.check_names("python -m fixers", Arguments, *ALIASES)


def parse(arguments: list[str]) -> Arguments:
    """The arguments; flags of Difix3D and Fixer without a meaning here are ignored with a note."""
    used, i = [], 0
    while i < len(arguments):
        name, _, value = arguments[i].partition("=")
        key = name.removeprefix("--").replace("-", "_")
        if name.startswith("--") and key in IGNORED:
            has_value = i + 1 < len(arguments) and not arguments[i + 1].startswith("--")
            log.info("%s has no meaning for this fixer and is ignored", name)
            i += 2 if has_value and not value and key != "test_speed" else 1
            continue
        if name.startswith("--") and key in ("input", "input_image"):
            given = value or (arguments[i + 1] if i + 1 < len(arguments) else "")
            used.append(given)
            i += 1 if value else 2
            continue
        used.append(arguments[i])
        i += 1
    about = inspect.cleandoc(Arguments.__doc__)
    return parse_command(
        Arguments,
        "python -m fixers",
        args=used,
        description=about,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def check(arguments: Arguments) -> None:
    """Raises ValueError for what no work should begin with."""
    if arguments.path is None:
        raise ValueError("name a picture, a folder of pictures or a video; see --help")
    arguments.choose_options()
    if arguments.warped and arguments.reference is None:
        raise ValueError("--warped describes the references: give --reference too")
    choose_device(arguments.device)
    for name in ("height", "width", "max_frames"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(arguments, name)}")
    if arguments.skip_frames < 0:
        raise ValueError(f"--skip_frames must not be negative, not {arguments.skip_frames}")
