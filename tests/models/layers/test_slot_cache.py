# The cache of slots: what it attends to, and that a removed slot was never there.
import pytest
import torch

from models.layers.attention import plain_attention
from models.layers.slot_cache import SlotCache


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, *shape, 8, generator=generator, dtype=torch.float64)


def filled(names, lengths, capacity=40) -> SlotCache:
    cache = SlotCache.empty(2, 3, capacity, 8, dtype=torch.float64)
    cache.keys.fill_(float("nan"))  # what is not in use must not be seen
    cache.values.fill_(float("nan"))
    for name in names:
        cache.add(name, draw(lengths[name], seed=name), draw(lengths[name], seed=100 + name))
    return cache


LENGTHS = {1: 5, 2: 3, 3: 5, 4: 7}


def test_it_attends_to_all_slots_and_nothing_behind_them():
    cache, q = filled([1, 2, 3], LENGTHS), draw(4, seed=9)
    keys = torch.cat([draw(LENGTHS[n], seed=n) for n in (1, 2, 3)], 2)
    values = torch.cat([draw(LENGTHS[n], seed=100 + n) for n in (1, 2, 3)], 2)
    expected = plain_attention(q, keys, values)
    torch.testing.assert_close(cache.attend(q), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("removed", [1, 2, 3, 4])
def test_a_removed_slot_was_never_there(removed):
    cache, q = filled([1, 2, 3, 4], LENGTHS), draw(4, seed=9)
    cache.remove(removed)
    without = filled([n for n in LENGTHS if n != removed], LENGTHS)
    assert cache.slots == without.slots
    assert torch.equal(cache.attend(q), without.attend(q))


def test_a_slot_can_be_removed_and_added_again_and_again():
    cache, q = filled([1, 2, 3], LENGTHS, capacity=13), draw(4, seed=9)
    for name in (2, 1, 3, 3, 2):
        cache.remove(name)
        cache.add(name, draw(LENGTHS[name], seed=name), draw(LENGTHS[name], seed=100 + name))
    assert list(cache.slots) == [1, 3, 2]
    torch.testing.assert_close(
        cache.attend(q), filled([1, 3, 2], LENGTHS).attend(q), rtol=0, atol=0
    )


def test_the_order_of_adding_does_not_matter():
    q = draw(4, seed=9)
    one, other = filled([1, 2, 3], LENGTHS), filled([3, 1, 2], LENGTHS)
    torch.testing.assert_close(one.attend(q), other.attend(q), rtol=0, atol=1e-12)


def test_a_slot_added_twice_counts_twice():
    cache, q = filled([1, 2], LENGTHS), draw(4, seed=9)
    before = cache.attend(q)
    cache.add("again", draw(5, seed=1), draw(5, seed=101))
    assert not torch.allclose(cache.attend(q), before)


def test_what_is_read_is_no_copy():
    cache = filled([1, 2], LENGTHS)
    keys, values = cache.read()
    assert keys.data_ptr() == cache.keys.data_ptr()
    assert values.data_ptr() == cache.values.data_ptr()
    assert keys.shape == (2, 3, 8, 8)


def test_one_sample_s_slot_serves_a_batch():
    cache = SlotCache.empty(2, 3, 6, 8, dtype=torch.float64)
    cache.add("photo", draw(6)[:1], draw(6, seed=1)[:1])
    assert torch.equal(cache.keys[0], cache.keys[1])


def test_what_does_not_fit_is_refused_and_changes_nothing():
    cache = filled([1, 2], LENGTHS, capacity=10)
    with pytest.raises(ValueError, match="room for 10 tokens, 8 of them in use: no place for 5"):
        cache.add(3, draw(5), draw(5))
    with pytest.raises(ValueError, match="slot 1 already"):
        cache.add(1, draw(2), draw(2))
    with pytest.raises(ValueError, match="no slot 7"):
        cache.remove(7)
    assert (cache.length, cache.capacity, list(cache.slots)) == (8, 10, [1, 2])
    cache.clear()
    assert cache.length == 0
    cache.add(4, draw(7), draw(7))
