# Prose is wrapped at 100 columns; tables, code and lines with a link are as long as they must be.
import pytest

from tests.conftest import ROOT

COLUMNS = 100
FILES = ("README.md", "docs/*.md", "checkpoints/README.md", "data/README.md")


def long_lines(text: str) -> list[int]:
    """Numbers of the lines of prose that are too long."""
    numbers, code = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            code = not code
        free = code or line.lstrip().startswith("|") or "](" in line or "://" in line
        if len(line) > COLUMNS and not free:
            numbers.append(number)
    return numbers


def test_what_counts_as_prose():
    long = "word " * 30
    assert long_lines(f"short\n{long}\n") == [2]
    assert long_lines(f"| {long} |\n```\n{long}\n```\n[{long}](a.md)\n{long} https://x.y\n") == []


@pytest.mark.parametrize(
    "path", sorted(p for pattern in FILES for p in ROOT.glob(pattern)), ids=lambda p: p.name
)
def test_prose_is_wrapped(path):
    assert long_lines(path.read_text()) == []
