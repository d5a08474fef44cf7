# Another project's files whose tensors are ours under other names.
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.checkpoints.io import count_sizes
from models.checkpoints.system import fill

Rules = Sequence[tuple[str, str]]
"""Regular expressions, ours -> theirs, applied one after the other to whole names."""


class RenamedLayout:
    """An `Adapter` by rules: the weights of a model, in a file {"model": ...} or bare."""

    def __init__(
        self,
        title: str,
        rules: Rules,
        mark: str,
        read_config: Callable[[Mapping[str, Tensor]], Any],
        build: Callable[[Any, Collection[str]], nn.Module],
        dropped: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        """mark: a tensor that only such files have. read_config: the sizes that tensors tell.
        dropped: beginnings of the names of tensors that are not the model's. notes: tensors for
        `read_config` alone."""
        self.title, self.rules, self.mark, self.dropped = title, rules, mark, dropped
        self.notes = notes
        self.read_config, self.build = read_config, build

    def foreign_name(self, name: str) -> str:
        """The name there of one of our tensors."""
        for pattern, replacement in self.rules:
            name = re.sub(pattern, replacement, name)
        return name

    def recognize(self, content: object) -> bool:
        """Whether a file's content, as `io.read` gives it, has this layout."""
        return isinstance(content, Mapping) and isinstance(content.get(self.mark), Tensor)

    def load(self, path: Path, content: Mapping) -> nn.Module:
        """The model in such a file, float32, in eval mode, without gradients. Raises ValueError,
        naming the file, unless all tensors fit."""
        tensors = self.weights(content)
        try:
            model = self.build(self.read_config(tensors), tensors)
        except (KeyError, ValueError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{path}, a checkpoint of {self.title}, does not fit: {what}"
            ) from None
        expected = {self.foreign_name(name): name for name in model.state_dict()}
        tensors = {name: t for name, t in tensors.items() if name not in self.notes}
        shapes = {theirs: model.get_parameter(ours).shape for theirs, ours in expected.items()}
        misfits = [f"{name} is missing" for name in expected if name not in tensors]
        misfits += [f"{name} is unexpected" for name in tensors if name not in expected]
        misfits += [
            f"{name} is {list(tensor.shape)} instead of {list(shapes[name])}"
            for name, tensor in tensors.items()
            if name in shapes and tensor.shape != shapes[name]
        ]
        state = {expected[name]: t for name, t in tensors.items() if name in expected}
        fill(model, state, misfits, path, self.foreign_name)
        return model.eval().requires_grad_(False)

    def inspect(self, path: Path, content: Mapping) -> dict:
        """What such a file is, by heading."""
        tensors, parts = self.weights(content), {}
        for name, tensor in tensors.items():
            if name not in self.notes:
                parts.setdefault(name.split(".")[0], []).append(tensor)
        return {
            "file": str(path),
            "format": f"{self.title}'s original layout, pickle",
            "parts": {part: count_sizes(own) for part, own in parts.items()},
            "config": asdict(self.read_config(tensors)),
        }

    def export(self, model: nn.Module) -> dict:
        """A model as the original's scripts store it."""
        state = model.state_dict()
        return {"model": {self.foreign_name(name): t.contiguous() for name, t in state.items()}}

    def weights(self, content: Mapping) -> dict[str, Tensor]:
        """The model's own tensors, by their names there."""
        return {
            name: value
            for name, value in content.items()
            if isinstance(value, Tensor) and not name.startswith(self.dropped)
        }


def count_blocks(names: Collection[str], blocks: str) -> int:
    """How many layers `<blocks>.<number>. ...` there are."""
    matches = (re.match(rf"{re.escape(blocks)}\.(\d+)\.", name) for name in names)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def read_patch(colors: Tensor) -> int:
    """Pixels along each side of a token, from the weight [3 patch patch, C] of its colours."""
    return round((colors.shape[0] / 3) ** 0.5)
