# CUDA graphs of whole calls: launched one by one, the thousands of small kernels of next-scale
# decoding keep a GPU waiting. (Not yet run on a GPU: off unless asked for.)
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Work = Callable[..., tuple[Tensor, ...]]
WARM_UPS = 3  # kernels are chosen, caches filled and tables made before anything is captured


@dataclass(frozen=True)
class Captured:
    """A graph, the tensors that it reads, and those that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Graphs:
    """Runs functions of tensors as CUDA graphs: one for each name and shapes, the `most` last used
    ones; they share their memory. On other devices functions are simply called."""

    def __init__(self, most: int = 16):
        self.most = most
        self._captured: OrderedDict[tuple, Captured] = OrderedDict()
        self._pool: tuple[int, int] | None = None

    def __call__(self, name: str, work: Work, *inputs: Tensor) -> tuple[Tensor, ...]:
        """work(*inputs), which must be one kernel after the other: no draws of its own, nothing
        that waits for or copies from the host, and nothing else that changes between calls of the
        same name."""
        if not inputs[0].is_cuda:
            return work(*inputs)
        key = name, *((tuple(x.shape), x.dtype) for x in inputs)
        if key not in self._captured:
            self._captured[key] = self._capture(work, inputs)
            while len(self._captured) > self.most:
                self._captured.popitem(last=False)
        self._captured.move_to_end(key)
        captured = self._captured[key]
        for static, given in zip(captured.inputs, inputs, strict=True):
            static.copy_(given)
        captured.graph.replay()
        # copied, since the next replay of any graph may write there
        return tuple(x.clone() for x in captured.outputs)

    def clear(self) -> None:
        """After weights moved or changed."""
        self._captured.clear()

    def _capture(self, work: Work, inputs: tuple[Tensor, ...]) -> Captured:
        static = tuple(x.clone() for x in inputs)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                work(*static)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = work(*static)
        return Captured(graph, static, outputs)
