#!/usr/bin/env bash
# `import pycolmap` (4.2.1) hands SIGTERM from the program to glog's handler of crashes: a program
# that had said what to do at SIGTERM prints a stack trace and dies of the signal, unsaved, while
# Python's signal.getsignal still names the program's own function. Setting that function once more
# after the import brings it back. A program without a handler of its own prints the trace as well.
# Output seen:
#   before the import: handled (exit code 3)
#   after the import: getsignal names our handler: True, ended by signal 15, stack trace: True
#   set again: getsignal names our handler: True, handled (exit code 3)
# Exits with 1 if this changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.2.6 pycolmap==4.2.1
cd "$work"
cat > program.py <<'PY'
import os
import signal
import sys
import time


def handler(*_):
    sys.exit(3)


signal.signal(signal.SIGTERM, handler)
if sys.argv[1] != "before":
    import numpy  # before pycolmap
    import pycolmap

    print(signal.getsignal(signal.SIGTERM) is handler, flush=True)
if sys.argv[1] == "again":
    signal.signal(signal.SIGTERM, handler)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
PY
"$work/venv/bin/python" - <<'PY'
import subprocess
import sys

before, after, again = (
    subprocess.run([sys.executable, "program.py", when], capture_output=True, text=True)
    for when in ("before", "after", "again")
)
traced = "stack trace" in after.stderr
print(f"before the import: handled (exit code {before.returncode})")
print(
    f"after the import: getsignal names our handler: {after.stdout.strip()}, "
    f"ended by signal {-after.returncode}, stack trace: {traced}"
)
print(
    f"set again: getsignal names our handler: {again.stdout.strip()}, "
    f"handled (exit code {again.returncode})"
)
seen = before.returncode, after.stdout, after.returncode, traced, again.stdout, again.returncode
sys.exit(seen != (3, "True\n", -15, True, "True\n", 3))
PY
