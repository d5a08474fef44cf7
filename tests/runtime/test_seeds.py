# Seeds derived from several numbers.
from runtime.seeds import mix_seeds


def test_mixed_tells_its_numbers_apart():
    assert mix_seeds(1, 23) != mix_seeds(12, 3)
    assert mix_seeds(1, 2) != mix_seeds(2, 1)
    assert mix_seeds(1, 2) != mix_seeds(1, 2, 0)
    assert 0 <= mix_seeds(-5, 2**200) < 2**63
    # checkpoints of today must go on tomorrow, in another process
    assert mix_seeds(1, 2, 3) == 1138364116778193076
