# The engine trains any system: a toy one end to end, without importing another.
import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from runtime import precision
from tests.training.toy_system import DenoisingStage, SineWaves, train_toy

ROOT = Path(__file__).parents[2]
COMMON = ("--batch_size=3", "--tblr=1e-2", "--wp=0", "--log_every=2", "--eval_freq=12", "--fp16=0")
COMMON += ("--device=cpu",)


class PowerCut(Exception):
    pass


class CutOff(SineWaves):
    """Samples that fail after so many."""

    def __init__(self, count, most):
        super().__init__(count)
        self.left = most

    def __getitem__(self, item):
        self.left -= 1
        if self.left < 0:
            raise PowerCut
        return super().__getitem__(item)


def read(folder, name="toy-ckpt-last.pth"):
    return torch.load(folder / name, weights_only=True)


def rows(folder):
    clocks = ("seconds", "samples_per_second", "memory_gb")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in clocks} for row in lines]


def leaves(content, path=""):
    if isinstance(content, dict):
        for key, value in content.items():
            if key != "exp_name":
                yield from leaves(value, f"{path}/{key}")
    elif isinstance(content, list | tuple):
        for i, value in enumerate(content):
            yield from leaves(value, f"{path}/{i}")
    else:
        yield path, content


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Runs of 12 steps: with an average of the weights and accumulated gradients, and without."""
    folder = tmp_path_factory.mktemp("toy")
    for name, own in RUNS.items():
        train_toy(*COMMON, *own, f"--results={folder}", f"--exp_name={name}")
    return folder


RUNS = {
    "plain": ("--steps=12",),
    "averaged": ("--steps=12", "--ema=0.9", "--ac=2", "--eval_freq=24"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(results, name):
    again = (*COMMON, *RUNS[name], f"--results={results}", f"--exp_name={name}-again")
    per_step = 6 if name == "averaged" else 3
    with pytest.raises(PowerCut):  # in step 7, after the save of step 4
        train_toy(*again, samples=CutOff(12, 6 * per_step + 1))
    assert read(results / f"{name}-again")["resume"]["step"] == 4
    train_toy(*again)
    assert rows(results / f"{name}-again") == rows(results / name)
    ours, theirs = (dict(leaves(read(results / one))) for one in (f"{name}-again", name))
    assert ours.keys() == theirs.keys()
    for place, value in theirs.items():
        same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
        assert same(ours[place], value), place


def test_it_learns_and_says_so(results):
    folder = results / "plain"
    table = list(csv.DictReader((folder / "metrics.csv").open()))
    learnt = [row for row in table if row["kind"] == "train"]
    assert [int(row["step"]) for row in learnt] == [2, 4, 6, 8, 10, 12]
    assert {"loss", "error", "worst", "seen", "lr", "grad_norm"} <= table[0].keys()
    assert float(learnt[-1]["error"]) < 0.7 * float(learnt[0]["error"])
    judged = [float(row["error"]) for row in table if row["kind"] == "val"]
    assert judged == sorted(judged, reverse=True) and len(judged) == 3
    assert len(list((folder / "val" / "0000012").glob("*.png"))) == 1
    assert (folder / "training.png").is_file()


def test_the_best_validation_is_kept_apart(results):
    content = read(results / "plain", "toy-ckpt-best.pth")
    assert content["at"] == [12 // 4, 12]
    assert content["resume"]["best"] == -min(
        row["error"] for row in rows(results / "plain") if row["kind"] == "val"
    )


def test_the_second_network_joins_when_it_should(results):
    judged = [row.get("judge") for row in rows(results / "plain") if row["kind"] == "train"]
    assert judged[0] is None and all(judged[1:])
    torch.manual_seed(0)
    nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
    new = DenoisingStage(nn.Identity(), torch.float32).judge.state_dict()
    after = read(results / "plain")["resume"]
    assert any(not torch.equal(after["stage"]["judge"][name], new[name]) for name in new)
    # its optimizer took the ten steps from the third on
    assert {float(s["step"]) for s in after["others"]["judge"]["state"].values()} == {10.0}


def test_what_is_saved_and_validated_is_the_average(results):
    content = read(results / "averaged")
    live = content["resume"]["ema"]["live"]
    assert live.keys() == content["weights"].keys()
    assert all(not torch.equal(live[name], content["weights"][name]) for name in live)
    assert content["resume"]["ema"]["updates"] == 12
    assert read(results / "plain")["resume"]["ema"] is None


def test_other_flags_are_said_and_another_average_is_refused(results, caplog):
    again = (*COMMON, f"--results={results}", "--exp_name=averaged", "--ac=2")
    train_toy(*again, "--steps=12", "--ema=0.9", "--twd=0.1")
    assert "going on with --twd=0.1; the run had 0.05 so far" in caplog.text
    with pytest.raises(ValueError, match=r"made with --ema=0\.9, not 0\.0"):
        train_toy(*again, "--steps=12")


def test_a_broken_sample_is_named(tmp_path):
    own = (f"--results={tmp_path}", "--steps=4", "--exp_name=broken")
    with pytest.raises(ValueError, match=r"^wave 5: its file is torn"):
        train_toy(*COMMON, *own, samples=SineWaves(12, broken=5))


def test_a_stage_that_cannot_be_divided_says_so():
    with pytest.raises(ValueError, match="--fsdp"):
        DenoisingStage(nn.Identity(), torch.float32).shard()


@pytest.mark.parametrize("multiplies", [True, False])
@pytest.mark.parametrize("forced", [True, False])
def test_bfloat16_is_used_where_the_processor_has_it_or_it_is_forced(
    multiplies, forced, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: multiplies)
    caplog.set_level("INFO")
    used = []
    forward = DenoisingStage.forward

    def noting(self, *arguments):
        used.append(self.dtype)
        return forward(self, *arguments)

    monkeypatch.setattr(DenoisingStage, "forward", noting)
    own = (f"--results={tmp_path}", "--steps=1", "--fp16=2", f"--force_bf16={forced}")
    train_toy(*COMMON, *own, "--exp_name=half")
    assert set(used) == {torch.bfloat16 if multiplies or forced else torch.float32}
    assert ("no bfloat16 instructions" in caplog.text) == (not multiplies and not forced)


ALONE = """
import sys
from tests.training.toy_system import train_toy
train_toy(*sys.argv[1:])
rooms = ("models", "fixers", "generators", "reconstruction", "splats")
loaded = sorted(name for name in sys.modules if name.split(".")[0] in rooms)
print([name for name in loaded if not name.startswith("models.checkpoints") and name != "models"])
"""


def test_it_trains_without_any_other_system(tmp_path):
    own = (f"--results={tmp_path}", "--steps=2", "--exp_name=alone")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *COMMON, *own],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "alone" / "toy-ckpt-last.pth").is_file()


def test_steps_of_exploded_gradients_are_left_out(tmp_path, caplog):
    """A sample of NaN leaves weights and optimizer alone; a run of nothing else ends."""

    class Torn(SineWaves):
        def __init__(self, count, torn):
            super().__init__(count)
            self.torn = torn

        def __getitem__(self, item):
            name, clean, noisy = super().__getitem__(item)
            return name, clean, noisy * (float("nan") if item[0] in self.torn else 1)

    flags = (*COMMON, f"--results={tmp_path}", "--steps=8", "--tclip=1", "--tskip=10")
    train_toy(*flags, "--exp_name=some", samples=Torn(12, {3}))
    assert "steps left out: gradients of norm nan" in caplog.text
    weights = read(tmp_path / "some")["weights"]
    assert all(tensor.isfinite().all() for tensor in weights.values())
    lines = [row for row in rows(tmp_path / "some") if row["kind"] == "train"]
    assert lines and all(row["loss"] == row["loss"] for row in lines)
    with pytest.raises(ValueError, match=r"too large \(50 steps were left out\)"):
        train_toy(*flags, "--steps=80", "--exp_name=all", samples=Torn(12, set(range(12))))
    with pytest.raises(ValueError, match="loss is not finite at step"):
        train_toy(*flags[:-1], "--exp_name=without", samples=Torn(12, {3}))
    with pytest.raises(ValueError, match=r"--tskip=10\.0 is a factor of --tclip"):
        train_toy(*COMMON, "--tclip=0", "--tskip=10", "--exp_name=none")
