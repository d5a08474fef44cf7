# Generators are built by name.
from pathlib import Path

import pytest
import torch

from examples.gsplat.flags import FixerFlags, Flags
from examples.gsplat.inputs import GENERATORS, load_generator
from generators import RenderThenFix
from reconstruction import FixConfig

DEVICE = torch.device("cpu")


def test_a_generator_is_named(monkeypatch):
    flags = Flags(Path("capture"), fixing=FixerFlags(fixer="classical"))
    generator = load_generator(flags, FixConfig(), DEVICE)
    assert isinstance(generator, RenderThenFix) and generator.settings["fixer"] == "classical"
    monkeypatch.setitem(GENERATORS, "toy", lambda *inputs: inputs)
    assert load_generator(flags, FixConfig(), DEVICE, "toy") == (flags, FixConfig(), DEVICE)
    with pytest.raises(ValueError, match="no generator 'none': use render_then_fix, toy"):
        load_generator(flags, FixConfig(), DEVICE, "none")
