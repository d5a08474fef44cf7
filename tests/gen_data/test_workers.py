# Worker processes: a task that fails, raises a bug or kills its worker does not stop the others.
import logging

from gen_data import workers

WORK = """
import os
import signal


def work(task, worker, report):
    report(1, 2)
    if task == "value":
        raise ValueError("photo.png is\\nempty")
    if task == "bug":
        raise KeyError("x")
    if task == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    import torch

    return f"{task} with {torch.get_num_threads()} threads"
"""


def test_what_fails_is_told_and_the_rest_is_done(tmp_path, monkeypatch, caplog):
    (tmp_path / "work_of_the_test.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(2)), raising=False)
    import work_of_the_test

    tasks = {"a": "kill", "b": "value", "c": "bug", "d": "fine", "e": "good"}
    with caplog.at_level(logging.INFO):
        failures = workers.run_in_workers(work_of_the_test.work, tasks, workers=2)
    assert sorted(failures) == ["a", "b", "c"]
    assert "SIGKILL" in failures["a"]
    assert failures["b"] == "failed: photo.png is empty"
    assert "KeyError" in failures["c"]
    assert "d: fine with 1 threads" in caplog.text
    assert "e: good with 1 threads" in caplog.text
    assert caplog.text.count("/5] ") == 5
    assert workers.run_in_workers(work_of_the_test.work, {}) == {}
