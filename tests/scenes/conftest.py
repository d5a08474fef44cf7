from pathlib import Path

import pytest

from tests.scenes.captures import write_capture


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Eight views of 64x48 with a PINHOLE COLMAP model."""
    root = tmp_path / "capture"
    write_capture(root)
    return root
