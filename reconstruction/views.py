# The order in which training views are seen.
from __future__ import annotations

from typing import Any

import torch


class ViewOrder:
    """Every view once per round, in an order drawn anew each round; can be saved and restored."""

    def __init__(self, views: tuple[int, ...], seed: int) -> None:
        self.views = views
        self.remaining: list[int] = []
        self.aside: frozenset[int] = frozenset()
        """Views that are passed over."""
        self.generator = torch.Generator().manual_seed(seed)

    def next(self) -> int:
        """Index of the next view."""
        while True:
            if not self.remaining:
                order = torch.randperm(len(self.views), generator=self.generator)
                self.remaining = [self.views[i] for i in order.tolist()]
            view = self.remaining.pop()
            if view not in self.aside:
                return view

    def state_dict(self) -> dict[str, Any]:
        return {
            "remaining": list(self.remaining),
            "generator": self.generator.get_state(),
            "aside": sorted(self.aside),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.remaining = list(state["remaining"])
        self.generator.set_state(state["generator"])
        self.aside = frozenset(state.get("aside", ()))
