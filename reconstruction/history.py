# What a run has been through, kept in its checkpoints and drawn in its report.
from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What a run has been through.

    seconds: time spent optimising. curve: (step, PSNR) of the training views, averaged over
    stretches. evaluations: {"step", "psnr", ...} of the held-out views, steps counted from zero.
    """

    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_checkpoint(cls, saved: dict[str, Any]) -> History:
        """The history in a checkpoint, empty if another program wrote it; ValueError if broken."""
        text = saved.get("history")
        if not isinstance(text, str):
            return cls()
        try:
            values = json.loads(text)
            curve = [(int(step), float(psnr)) for step, psnr in values["curve"]]
            evaluations = [{**known, "step": int(known["step"])} for known in values["evaluations"]]
            return cls(float(values["seconds"]), curve, evaluations)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(
                "the checkpoint's history is damaged; use another checkpoint"
            ) from None
