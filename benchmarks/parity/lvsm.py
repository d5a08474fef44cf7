# LVSM beside the original's vectors.
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.parity.comparison import Comparison, Row, named_weights, read_arrays
from benchmarks.parity.efficient_lvsm import Views
from models.lvsm.adapter import LAYOUT


@torch.no_grad()
def compare(folder: Path) -> list[Row]:
    """All comparisons that a folder's files allow."""
    model, theirs, table = LAYOUT.load(folder, named_weights(folder, "model")), {}, Comparison()
    theirs = read_arrays(folder, "render")
    for scene in ("square", "wide"):
        views = Views.read(folder, scene, theirs)
        for name in (name for name in theirs if name.startswith(f"{scene}_render_")):
            count = int(name.rsplit("_", 1)[1])
            ours = model(views.photos[:, :count], views.rays[:, :count], views.rays[:, 4:])[0]
            table.values(f"render: {scene} {count}", ours, theirs[name])
    streams: list[Tensor] = []
    model(views.photos[:, :2], views.rays[:, :2], views.rays[:, 4:5], streams)
    ours = torch.stack([stream[0, 0, ::6] for stream in streams])
    table.values("stream of target 4", ours, theirs["wide_stream_2_inputs_target_4"])
    return table.rows
