from pathlib import Path

import pytest

from scenes import Scene
from tests.scenes.captures import write_capture
from tests.scenes.known import write_known_capture


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Eight views of 64x48 with a PINHOLE COLMAP model."""
    root = tmp_path / "capture"
    write_capture(root)
    return root


@pytest.fixture(scope="session")
def known(tmp_path_factory) -> Scene:
    """24 views of 200x150 with 10,000 points; `path` is its folder, for reading only."""
    return write_known_capture(tmp_path_factory.mktemp("known") / "capture")
