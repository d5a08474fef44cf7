import scenes  # first, before torch loads: it sets how threads wait  # noqa: F401
