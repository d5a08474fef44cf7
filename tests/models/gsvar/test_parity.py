# The networks against vectors made by the original ones, where those are here.
from pathlib import Path

import pytest

from benchmarks.parity import compare

FOLDER = Path(__file__).parents[3].parent / "shared/parity/gsvar"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/parity/gsvar is not here")
def test_the_networks_are_the_originals():
    rows = compare(FOLDER)
    assert len(rows) >= 20
    assert [f"{row.name}: {row.error:.1e}" for row in rows if not row.passes] == []
