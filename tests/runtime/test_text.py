# Counts, ordinals and lists in messages.
from runtime.text import format_count, format_list, format_ordinal


def test_counts_have_their_plural():
    assert [format_count(n, "photo") for n in (0, 1, 2)] == ["0 photos", "1 photo", "2 photos"]


def test_ordinals_have_their_ending():
    expected = [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "12th",
        "13th",
        "21st",
        "22nd",
        "23rd",
        "101st",
        "111th",
    ]
    assert [format_ordinal(int(text[:-2])) for text in expected] == expected


def test_long_lists_are_cut():
    assert format_list(["a", "b"], 2) == "a, b"
    assert format_list(["a", "b", "c", "d"], 2) == "a, b and 2 more"
