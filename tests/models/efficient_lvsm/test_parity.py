# The networks against vectors made by the original ones, where those are here.
from pathlib import Path

import pytest

from benchmarks.parity import efficient_lvsm, lvsm

FOLDER = Path(__file__).parents[3].parent / "shared/parity"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/parity is not here")
@pytest.mark.parametrize(
    ("system", "least"), [("efficient_lvsm", 96), ("lvsm", 6)], ids=["efficient_lvsm", "lvsm"]
)
def test_the_networks_are_the_originals(system, least):
    compare = {"efficient_lvsm": efficient_lvsm, "lvsm": lvsm}[system].compare
    rows = compare(FOLDER / system)
    assert len(rows) >= least
    assert [f"{row.name}: {row.error:.1e}" for row in rows if not row.passes] == []
