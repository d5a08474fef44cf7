# Errors of arguments: named as the function does, or as the command line does.
import pytest

from runtime.arguments import ArgumentError, naming_flags


def test_an_argument_has_its_own_name_or_the_flag_s():
    error = ArgumentError("a.pth has depth 2, not {argument}=24", "depth")
    assert str(error) == "a.pth has depth 2, not depth=24"
    with pytest.raises(ValueError, match="not --depth=24"), naming_flags(depth="--depth"):
        raise error
    with pytest.raises(ArgumentError, match="not depth=24"), naming_flags(rank="--rank"):
        raise error
