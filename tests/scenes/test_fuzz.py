import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import GUARD

ROOT = Path(__file__).resolve().parents[2]


def test_mutated_captures_load_or_are_refused_in_one_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.scenes.fuzz_captures", str(tmp_path), "0", "360"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=GUARD,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = json.loads(done.stdout)
    assert counts["refused"] > 90 and counts["loaded"] > 30, counts
