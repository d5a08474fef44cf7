# Flags of all registered fixers: a new one brings its own, and options of others are refused.
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
import tyro

import fixers
from fixers import arguments as fixers_command
from fixers import registry
from fixers.fixer import FixerOptions, Needs, blend_by_confidence, validate_inputs
from fixers.flags import OptionFlags, describe_fixers, list_options
from fixers.testing import command as testing
from fixers.testing import flags as test_flags
from runtime import precision

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class BrighterOptions(FixerOptions):
    """Of a toy fixer."""

    gain: float = 2.0
    """How much brighter it makes pictures."""


class Brighter:
    """A toy fixer."""

    needs = Needs()

    def __init__(self, options, device=None):
        self.gain = options.gain

    def fix(self, renders, references=None, *, confidence=None, alphas=None):
        renders, _ = validate_inputs(renders, references, confidence, alphas)
        return blend_by_confidence(renders, (renders * self.gain).clamp(0, 1), confidence)


@pytest.fixture
def registered(monkeypatch):
    """The toy, registered by one line."""
    monkeypatch.setitem(registry.FIXERS, "brighter", (BrighterOptions, Brighter))
    list_options.cache_clear()
    yield
    monkeypatch.undo()
    list_options.cache_clear()


@pytest.mark.usefixtures("registered")
def test_a_line_in_the_registry_is_all_that_a_fixer_needs():
    render = torch.full((1, 4, 4, 3), 0.2)
    assert torch.equal(fixers.load("brighter", gain=3.0).fix(render), (render * 3.0).clamp(0, 1))
    flags = OptionFlags(prefix="fixer_")
    group = flags.make_group("Group", "doc", list_options())
    assert flags.choose_options("brighter", group(fixer_gain=4.0)) == BrighterOptions(4.0)
    assert list_options()["gain"].help == "How much brighter it makes pictures. [brighter]"
    with pytest.raises(ValueError, match="--fixer_gain is an option of brighter; --fixer gsvar"):
        flags.choose_options("gsvar", group(fixer_gain=4.0))


@dataclass(frozen=True)
class Undocumented(FixerOptions):
    """Of a toy fixer."""

    gain: float = 2.0


@dataclass(frozen=True)
class OtherChoices(FixerOptions):
    """Of a toy fixer."""

    dtype: Literal["float32", "int8"] = "float32"
    """Precision."""


@dataclass(frozen=True)
class Wide(FixerOptions):
    """Of a toy fixer."""

    width: int = 3
    """Channels."""
    limit: int = 3
    """Of what it adds."""


@dataclass(frozen=True)
class Resizing(FixerOptions):
    """Of a toy fixer."""

    mode: Literal["tile", "resize", "native", "auto"] = "resize"
    """How."""


@pytest.fixture
def register(monkeypatch):
    """Registers a toy with these options."""

    def register(options):
        monkeypatch.setitem(registry.FIXERS, "toy", (options, lambda *_: None))
        list_options.cache_clear()

    yield register
    monkeypatch.undo()
    list_options.cache_clear()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (Undocumented, "the option gain of the fixer toy needs a docstring"),
        (OtherChoices, "the option dtype of the fixer toy must have the type that it has in gsvar"),
    ],
)
def test_options_that_make_no_flags_are_one_sentence_for_their_author(register, options, sentence):
    register(options)
    with pytest.raises(TypeError, match=sentence):
        list_options()


@pytest.mark.parametrize(
    ("flags", "command", "own", "flag"),
    [
        (fixers_command.FLAGS, "python -m fixers", (fixers_command.Arguments,), "width"),
        (test_flags.FLAGS, "test_tile.py", (test_flags.Results, "limit"), "limit"),
    ],
)
def test_an_option_named_like_a_command_s_own_flag_is_refused(register, flags, command, own, flag):
    flags.check_names(command, *own)
    register(Wide)
    with pytest.raises(TypeError, match=f"another name: --{flag} is a flag of {command}"):
        flags.check_names(command, *own)


def test_a_fixer_may_have_modes_without_batches(register, monkeypatch, tmp_path):
    register(Resizing)
    parsed = test_flags.parse_test([f"--testset_path={tmp_path}", "--device=cpu"], "x", "x")
    fixing = vars(parsed.fixing) | {"fixer": "toy"}
    toy = SimpleNamespace(
        data=parsed.data,
        weights=parsed.weights,
        fixing=SimpleNamespace(**fixing),
        results=parsed.results,
        choose_options=Resizing,
    )
    calls = []
    monkeypatch.setattr(testing, "select_triplets", lambda *a: [])
    monkeypatch.setattr(testing.run, "test_fixer", lambda *a, **k: calls.append(k["at_a_time"]))
    monkeypatch.setattr(testing.TestedFixer, "settings", lambda self: {})
    testing.test(toy, mode="resize", suffix="")
    assert calls == [1]


def test_help_describes_the_registered_fixers(register):
    register(Resizing)
    assert describe_fixers().endswith("; toy: Of a toy fixer.")


@pytest.mark.parametrize(
    ("given", "bridge"),
    [
        ([], None),
        (["--use_bridge"], True),
        (["--no-use_bridge"], False),
        (["--no-use-bridge"], False),
        (["--without_bridge"], False),
    ],
)
def test_the_trainer_s_no_use_bridge_means_off(given, bridge):
    from examples.gsplat.flags import OPTIONS, FixerOptionFlags

    group = tyro.cli(FixerOptionFlags, args=given, use_underscores=True)
    assert OPTIONS.choose_options("gsvar", group).bridge is bridge
    with pytest.raises(SystemExit):
        tyro.cli(FixerOptionFlags, args=["--no-without_bridge"], use_underscores=True)


SPELLINGS = [
    OptionFlags(defaults={"dtype": "auto"}, opposites={"bridge": "no_bridge"}, switches=True),
    OptionFlags(names={"bridge": "use_bridge"}),
]


@pytest.mark.parametrize("flags", SPELLINGS)
def test_what_is_not_given_is_the_fixer_s_own_default(flags):
    group = flags.make_group("Group", "doc", list_options())
    for name, (kind, _) in registry.FIXERS.items():
        options = flags.choose_options(name, group())
        dtype = {"dtype": "auto"} if hasattr(options, "dtype") and flags.defaults else {}
        assert options == kind(**dtype)


def test_yes_no_and_the_fixer_s_own_choice():
    switches, values = SPELLINGS
    group = switches.make_group("Group", "doc", list_options())
    assert switches.choose_options("gsvar", group(bridge=True)).bridge is True
    assert switches.choose_options("gsvar", group(no_bridge=True)).bridge is False
    assert switches.choose_options("gsvar", group()).bridge is None
    with pytest.raises(ValueError, match="--bridge and --no_bridge"):
        switches.choose_options("gsvar", group(bridge=True, no_bridge=True))
    group = values.make_group("Group", "doc", list_options())
    assert values.choose_options("gsvar", group(use_bridge=False)).bridge is False
    with pytest.raises(ValueError, match="--use_bridge is an option of gsvar; --fixer identity"):
        values.choose_options("identity", group(use_bridge=False))


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("-m", "fixers", "a.png", "--fixer", "classical", "--mode", "tile"), "--mode"),
        (("test_tile.py", "--fixer=identity", "--refiner=mean"), "--refiner"),
        (("test_varsr.py", "--fixer=classical", "--use_lora=True"), "--use_lora"),
        (("-m", "fixers", "a.png", "--fixer", "classical", "--strength", "1000"), "--strength"),
    ],
)
def test_another_fixer_s_option_is_one_sentence_and_exit_code_2(arguments, flag):
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and flag in done.stderr
    assert done.stderr.count("\n") == 1


def test_flags_and_options_load_no_network_nor_opencv():
    code = "import sys, fixers, fixers.flags, fixers.arguments, fixers.testing.flags; "
    code += "print([m for m in ('torch', 'cv2', 'pycolmap', 'numba') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("multiplies", [True, False])
def test_both_kinds_of_processor(monkeypatch, caplog, model, multiplies):
    """auto takes bf16 where that is fast; asked for elsewhere it is float32, unless forced."""
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: multiplies)

    def dtype(**options):
        return fixers.load("gsvar", device="cpu", **options).model.word.weight.dtype

    fast = torch.bfloat16 if multiplies else torch.float32
    assert dtype(dtype="auto") == fast
    assert dtype() == torch.float32
    assert not caplog.records
    assert dtype(dtype="bf16") == fast
    assert ("no bfloat16 instructions" in caplog.text) != multiplies
    assert dtype(dtype="bf16", force_bf16=True) == torch.bfloat16
