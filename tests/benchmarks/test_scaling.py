# Processes beside one: what fails is told, and shares are counted.
import os
import sys

import pytest

from benchmarks.speed import scaling

CORES = [{min(os.sched_getaffinity(0))}]


def test_a_process_has_its_core_and_one_thread(tmp_path):
    out = tmp_path / "told"
    code = f"import os; open({str(out)!r}, 'w').write("
    code += "f'{os.sched_getaffinity(0)} ' + os.environ['OMP_NUM_THREADS'])"
    scaling.run([["-c", code]], CORES)
    assert out.read_text() == f"{CORES[0]} 1"


def test_a_process_that_fails_is_told():
    code = "import sys; print('error: no such list'); print('more'); sys.exit(3)"
    with pytest.raises(ValueError, match=r"exit code 3, \['error: no such list'\]"):
        scaling.run([["-c", code]], CORES)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_shards_are_run_one_after_the_other_and_together(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(scaling, "run", lambda commands, cores: ran.append(commands) or 2.0)
    rates = scaling.time_shards(lambda out: [[out.name, 0], [out.name, 1]], 8, tmp_path)
    assert rates == [2.0, 4.0]
    assert ran == [[["alone", 0]], [["alone", 1]], [["together", 0], ["together", 1]]]


def test_unknown_jobs_are_told(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["scaling", "--only", "dreaming"])
    with pytest.raises(ValueError, match="'dreaming': training, curation"):
        scaling.main()
