#!/usr/bin/env bash
# Set up, then lint, format check and tests. Arguments go to pytest: bash scripts/test.sh -k ply
# WORKERS  test processes at a time, with one thread each (2)
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
say "ruff"
ruff check .
ruff format --check .
if [[ ! -d ../shared/backbones ]]; then
    say "weights of LPIPS's backbones"
    python -m evaluation.backbones fetch --folder .venv/backbones ||
        echo "the tests of LPIPS with its real weights will be skipped"
fi
say "pytest"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
python -m pytest -n "${WORKERS:-2}" --dist loadfile "$@"
say "all tests passed"
