# What frozen networks made of windows: computed once, and never for other weights or windows.
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from models.gsvar import loading
from tests.training.conftest import sizes
from training.cache import Cache, fingerprint

CPU = torch.device("cpu")


class Maker:
    """Squares of the numbers in the names, and which of them were asked for."""

    def __init__(self, names):
        self.names, self.asked = names, []

    def __call__(self, places):
        self.asked.append([self.names[i] for i in places])
        numbers = torch.tensor([float(self.names[i]) for i in places])
        return (numbers**2)[:, None, None] * torch.ones(2, 3) + 0.1


def call(cache, *names):
    make = Maker(names)
    return cache(names, make, CPU), make.asked


def test_only_what_is_lacking_is_computed(tmp_path):
    cache = Cache(tmp_path, "squares")
    expected = Maker("3142")([0, 1, 2, 3])
    values, asked = call(cache, "1", "4")
    assert asked == [["1", "4"]]
    assert torch.equal(values, expected[[1, 2]])
    values, asked = call(cache, "3", "1", "4", "2")
    assert asked == [["3", "2"]]
    assert torch.equal(values, expected)
    values, asked = call(Cache(tmp_path, "squares"), "3", "1", "4", "2")
    assert asked == []
    assert torch.equal(values, expected)


def test_the_same_name_twice_in_a_batch(tmp_path):
    values, _ = call(Cache(tmp_path, "squares"), "5", "5")
    assert torch.equal(values[0], values[1])
    assert call(Cache(tmp_path, "squares"), "5")[1] == []


def test_kinds_are_apart(tmp_path):
    call(Cache(tmp_path, "one"), "1")
    assert call(Cache(tmp_path, "other"), "1")[1] == [["1"]]


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbage", "other", "short"])
def test_damaged_files_are_made_anew(tmp_path, damage):
    cache = Cache(tmp_path, "squares")
    expected, _ = call(cache, "7", "8")
    (file,) = [f for f in tmp_path.rglob("*.safetensors") if f == cache._file("7")]
    data = file.read_bytes()
    if damage == "other":
        from safetensors.torch import save_file

        save_file({"y": torch.ones(2)}, file)
    else:
        bad = {"empty": b"", "truncated": data[:-5], "garbage": b"\xff" * 100, "short": data[:5]}
        file.write_bytes(bad[damage])
    values, asked = call(cache, "7", "8")
    assert asked == [["7"]]
    assert torch.equal(values, expected)
    assert call(cache, "7", "8")[1] == []


def test_half_precision_and_layouts_come_back(tmp_path):
    cache = Cache(tmp_path, "x")
    values = torch.randn(2, 4, 5, 6).to(memory_format=torch.channels_last).bfloat16()
    first = cache(["a", "b"], lambda places: values[places], CPU)
    again = cache(["a", "b"], None, CPU)
    assert torch.equal(first, values)
    assert torch.equal(again, values)
    assert again.dtype == torch.bfloat16


FULL = """
import resource, sys
from pathlib import Path
import torch
from training.cache import Cache

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
cache = Cache(Path(sys.argv[1]), "x")
try:
    cache(["a"], lambda chosen: torch.ones(1, 1000), torch.device("cpu"))
except OSError as error:
    print(error)
print([str(f) for f in Path(sys.argv[1]).rglob("*") if f.is_file()])
"""


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], cwd=root, capture_output=True, text=True, check=True
    )
    message, left = done.stdout.splitlines()
    assert "could not be written to --cache_dir" in message
    assert str(Cache(tmp_path, "x")._file("a")) in message
    assert left == "[]"


def test_other_weights_have_another_fingerprint():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    names = [fingerprint(layer), fingerprint(layer, torch.bfloat16), fingerprint(layer, 10)]
    assert fingerprint(layer) == names[0]
    with torch.no_grad():
        layer.weight[0, 1] += 1e-6
        names.append(fingerprint(layer))
        layer.weight[0] = layer.weight[0].flip(0)  # the same sum
        names.append(fingerprint(layer))
        layer.bias[0], layer.bias[1] = layer.bias[1].item(), layer.bias[0].item()
        names.append(fingerprint(layer))
    names.append(fingerprint(nn.Sequential(layer)))
    assert len(set(names)) == len(names)


def test_what_no_weight_tells_is_in_the_fingerprint():
    """The blocks in which views see each other change what is restored, not the weights."""
    torch.manual_seed(0)
    model = loading.empty(sizes(), bridge=False).to_empty(device="cpu")
    for p in model.parameters():
        nn.init.zeros_(p)
    before = fingerprint(model)
    assert before == fingerprint(model)
    model.mix_in([1])
    assert fingerprint(model) != before
