#!/usr/bin/env bash
# Set up, then lint, format check and tests. Arguments go to pytest: bash scripts/test.sh -k ply
# WORKERS  test processes at a time, with one thread each (2)
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
say "ruff"
ruff check .
ruff format --check .
say "pytest"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python -m pytest -n "${WORKERS:-2}" --dist loadfile "$@"
say "all tests passed"
