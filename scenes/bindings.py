# pycolmap, loaded so that nothing else breaks; every module takes it from here.
import signal
from contextlib import suppress

import numpy as np  # noqa: F401, first: otherwise pycolmap 4.2 and Pillow 13 do not get along

_handler = signal.getsignal(signal.SIGTERM)

import pycolmap  # noqa: E402

# Its import hands SIGTERM to glog's handler of crashes, which prints a stack trace and dies of it,
# while Python goes on to state its own handler as the one in place.
with suppress(TypeError, ValueError):  # handlers that are not Python's; other threads
    signal.signal(signal.SIGTERM, _handler)

__all__ = ["pycolmap"]
