# The tiny capture of the reconstruction's tests.
from tests.reconstruction.conftest import scene

__all__ = ["scene"]
