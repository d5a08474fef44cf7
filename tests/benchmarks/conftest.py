# Benchmarks choose their threads; other tests want theirs back.
import numba
import pytest
import torch


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads(), numba.get_num_threads()
    yield
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])
