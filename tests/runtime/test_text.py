# Counts and lists in messages.
from runtime.text import format_count, format_list


def test_counts_have_their_plural():
    assert [format_count(n, "photo") for n in (0, 1, 2)] == ["0 photos", "1 photo", "2 photos"]


def test_long_lists_are_cut():
    assert format_list(["a", "b"], 2) == "a, b"
    assert format_list(["a", "b", "c", "d"], 2) == "a, b and 2 more"
