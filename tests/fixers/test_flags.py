# Flags of all registered fixers: a new one brings its own, and options of others are refused.
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import fixers
from fixers import registry
from fixers.fixer import FixerOptions, Needs, blend_by_confidence, validate_inputs
from fixers.flags import OptionFlags, list_options
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
