# A capture to learn from.
import pytest

from scenes import procedural


@pytest.fixture(scope="session")
def captures(tmp_path_factory):
    """A folder with one capture, a walk of 96 photos of 64x64."""
    folder = tmp_path_factory.mktemp("captures")
    procedural.write(folder / "town", 5, n_views=96, width=64, height=64, progress=False)
    return folder
