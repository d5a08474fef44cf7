# Seeds for parts of a run, derived from the run's seed and the part's number.
from __future__ import annotations

import hashlib


def mix_seeds(*numbers: int) -> int:
    """One seed in [0, 2^63) from integers (BLAKE2b); their order and number matter."""
    text = "/".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
