# Runs that are stopped at any moment are saved, and go on as if nothing had happened; what is
# locked, and positions in samples.
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from runtime.interrupts import Stopped
from tests.conftest import GUARD
from tests.training.toy_system import DenoisingStage, DenoisingValidation, SineWaves, train_toy
from training.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
COMMON = ("--tblr=1e-2", "--wp=0", "--fp16=0", "--device=cpu", "--log_every=50")
SIX = (*COMMON, "--batch_size=3", "--steps=6", "--eval_freq=9")
LAST = "toy-ckpt-last.pth"


@pytest.fixture(scope="module", autouse=True)
def without_curves():
    """Drawing them would take most of the time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.journal.draw", lambda rows, name: b"")
        yield


def read(folder):
    return torch.load(folder / LAST, weights_only=True)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The checkpoint of six steps with a validation after three of them, which nothing stopped."""
    results = tmp_path_factory.mktemp("straight")
    train_toy(*SIX, f"--results={results}", "--exp_name=toy")
    return read(results / "toy")


def leaves(content, path=""):
    if isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in items:
            # the loss's mean is over what is logged together
            if key not in ("results", "lowest"):
                yield from leaves(value, f"{path}/{key}")
    else:
        yield path, content.tolist() if isinstance(content, torch.Tensor) else content


def signal_in(monkeypatch, owner, name, call, number):
    """Send the signal within a call of owner.name, and let that go on."""
    original, calls = getattr(owner, name), [0]

    def signalling(*arguments, **options):
        calls[0] += 1
        if calls[0] == call:
            signal.raise_signal(number)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, signalling)


MOMENTS = {  # call of what, steps that are saved, whether the validation of step 3 is made again
    "reading": (SineWaves, "__getitem__", 12 + 5, 1, False),
    "forward": (DenoisingStage, "forward", 3, 2, False),
    "update": (DenoisingStage, "after_step", 2, 2, False),
    "validation": (DenoisingValidation, "__call__", 1, 3, True),
    "saving": (RunFolder, "save", 1, 3, False),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_stopped_at_any_moment_goes_on_bit_for_bit(
    straight, moment, tmp_path, monkeypatch, caplog
):
    owner, name, call, saved, again = MOMENTS[moment]
    given = (*SIX, f"--results={tmp_path}", "--exp_name=toy")
    caplog.set_level("INFO")
    with monkeypatch.context() as patch, pytest.raises(Stopped) as stop:
        signal_in(patch, owner, name, call, signal.SIGUSR1)
        train_toy(*given)
    assert stop.value.code == 143
    assert f"stopped after step {saved} of 6; the same command goes on" in caplog.text
    assert not (tmp_path / "toy" / "training.png").exists()  # it takes seconds
    content = read(tmp_path / "toy")
    state = content["resume"]
    assert (state["step"], state["validated"]) == (saved, not again)
    if moment == "update":  # as checkpoints were before they knew the position in samples
        for name in ("epoch", "taken", "end", "validated"):
            del state[name]
        torch.save(content, tmp_path / "toy" / LAST)
    train_toy(*given)
    assert dict(leaves(read(tmp_path / "toy"))) == dict(leaves(straight))
    lines = (tmp_path / "toy" / "metrics.jsonl").read_text().splitlines()
    assert [row["step"] for row in map(json.loads, lines) if row["kind"] == "val"] == [3, 6]


def stop_after(steps, *given, samples=None):
    with pytest.raises(Stopped), pytest.MonkeyPatch.context() as patch:
        signal_in(patch, DenoisingStage, "after_step", steps, signal.SIGTERM)
        train_toy(*given, samples=samples)


class Recorder(SineWaves):
    """Remembers which samples were asked for."""

    def __init__(self, count):
        super().__init__(count)
        self.asked = Counter()

    def __getitem__(self, item):
        self.asked[item[0]] += 1
        return super().__getitem__(item)


def test_a_run_that_goes_on_with_another_batch_size_has_as_many_epochs(tmp_path):
    given = (*COMMON, "--ep=4", f"--results={tmp_path}", "--exp_name=toy", "--log_every=1")
    stop_after(7, *given, "--batch_size=1", samples=SineWaves(9))
    samples = Recorder(9)
    train_toy(*given, "--batch_size=3", samples=samples)
    # two samples of the first epoch were too few for a step
    assert samples.asked == {i: 3 for i in range(9)}
    lines = [json.loads(line) for line in (tmp_path / "toy" / "metrics.jsonl").open()]
    trained = [row for row in lines if row["kind"] == "train"]
    assert [row["step"] for row in trained] == list(range(1, 17))
    assert trained[-1]["epoch"] == 4 and trained[6]["epoch"] == pytest.approx(7 / 9)
    # the learning rate falls over samples, and ends where it should (lin0: 1 % at the end)
    rates = [row["lr"] for row in trained]
    assert rates == sorted(rates, reverse=True)
    assert rates[7] == pytest.approx(1e-2 * (0.01 + 0.99 * (1 - 3 / 11) / 0.7), rel=0.1)
    assert rates[-1] == pytest.approx(1e-4)


def test_the_same_number_of_steps_is_as_many_samples_as_before(tmp_path):
    given = (*COMMON, "--steps=12", f"--results={tmp_path}", "--exp_name=toy")
    stop_after(4, *given, "--batch_size=3")
    stop_after(1, *given, "--batch_size=6")
    train_toy(*given, "--batch_size=2")
    state = read(tmp_path / "toy")["resume"]
    # 4 steps of 3 and one of 6 are half of 36 samples: 9 of 2 are the other half
    assert (state["step"], state["epoch"], state["taken"]) == (4 + 1 + 9, 3, 0)


def test_a_second_run_in_the_folder_is_refused(tmp_path, run_elsewhere):
    given = (*COMMON, "--steps=1", f"--results={tmp_path}", "--exp_name=toy")
    with run_elsewhere(tmp_path / "toy") as process, pytest.raises(ValueError) as error:
        train_toy(*given, "--resume=False")
    assert f"is in use by another run (process {process.pid} on " in str(error.value)
    assert "or take another --exp_name" in str(error.value)
    assert not (tmp_path / "toy" / LAST).exists()


def start(*command, **options):
    """A process group of its own, in which Ctrl-C is not ignored as in a shell's background."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

    def reset():
        signal.signal(signal.SIGINT, signal.default_int_handler)

    return subprocess.Popen(
        [sys.executable, *map(str, command)], cwd=ROOT, env=environment, text=True,
        stderr=subprocess.PIPE, start_new_session=True, preexec_fn=reset, **options,
    )  # fmt: skip


def wait_for(what, process):
    """Until what() is true; an error if the process ends before."""
    until = time.monotonic() + GUARD
    while not what():
        assert process.poll() is None and time.monotonic() < until, process.stderr.read()
        time.sleep(0.05)


def test_a_signal_to_all_processes_stops_the_run_and_not_its_workers(tmp_path):
    lines = tmp_path / "toy" / "metrics.jsonl"
    endless = (*COMMON, "--batch_size=3", "--steps=1000000", "--eval_freq=1000000000")
    process = start("-m", "tests.training.toy_system", *endless, f"--results={tmp_path}",
                    "--exp_name=toy", "--save_minutes=1e9")  # fmt: skip
    wait_for(lambda: lines.exists() and lines.read_text().count("\n") > 2, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=GUARD)
    assert process.returncode == 143, said
    assert "the same command goes on" in said and "Traceback" not in said
    assert read(tmp_path / "toy")["resume"]["step"] > 100


def test_processes_that_train_together_agree_to_stop(tmp_path):
    lines = tmp_path / "toy" / "metrics.jsonl"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    endless = (*COMMON, "--steps=1000000", "--eval_freq=1000000000", f"--results={tmp_path}")
    endless = (*endless, "--exp_name=toy", "--save_minutes=1e9")
    process = start(*torchrun, "-m", "tests.training.toy_system", *endless, "--batch_size=2")
    wait_for(lambda: lines.exists() and lines.read_text().count("\n") > 2, process)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=GUARD)
    state = read(tmp_path / "toy")["resume"]
    assert f"stopped after step {state['step']} of 1000000; the same command goes on" in said
    assert "SIGKILL" not in said
    assert state["step"] > 100 and state["step"] % 50
    # one process goes on from there, at the same sample
    stop_after(1, *endless, "--batch_size=3")
    later = read(tmp_path / "toy")["resume"]
    assert later["step"] == state["step"] + 1
    taken = 4 * state["step"] % 12 + 3
    expected = (0, taken) if taken <= 9 else (1, 0)  # no step of three is left in that epoch
    assert (later["epoch"] - 4 * state["step"] // 12, later["taken"]) == expected
