# Command lines by tyro: errors of one line, usage without paths.
from dataclasses import dataclass
from typing import Literal

import pytest

from runtime.flags import parse_command


@dataclass(frozen=True)
class Options:
    """A command."""

    size: int
    """How large."""
    mode: Literal["one", "two"] = "one"
    """Which."""
    colour: Literal["red", "blue"] | None = None
    """Of it (default: any)."""
    folder: str | None = None
    """Where it goes,
    1 or more of them (default: nowhere)."""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--size"),
        (["--size=x"], "--size"),
        (["--size=1", "--mode=three"], "invalid choice 'three' for argument '--mode'"),
        (["--size=1", "--colour=x"], "argument '--colour'. Expected one of ('"),
        (["--size=1", "--modes", "two"], "did you mean --mode?"),
        (["--size"], "--size"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_command(Options, "python -m room", args=arguments)
    text = capsys.readouterr().err
    assert stop.value.code == 2
    assert text.startswith("error: ") and sentence in text and text.count("\n") == 1
    assert not set("│╭╰─") & set(text) and "None" not in text


def test_help_joins_lines_and_names_one_default(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_command(Options, "python -m room", args=["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m room ")
    words = " ".join(text.replace("│", " ").replace("|", " ").split())
    assert "Where it goes, 1 or more of them (default: nowhere)." in words
    assert "default: None" not in text
    assert "Where it goes, 1" in text
