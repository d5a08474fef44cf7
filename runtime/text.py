# Counts, ordinals and lists in messages.
from __future__ import annotations


def format_count(n: int, noun: str) -> str:
    """1 photo, 2 photos."""
    return f"{n} {noun}" + "s" * (n != 1)


def format_ordinal(n: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def format_list(items: list[str], most: int = 10) -> str:
    """The first `most` items, and how many more there are."""
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + rest
