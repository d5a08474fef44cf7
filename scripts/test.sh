#!/usr/bin/env bash
# Set up, then lint, format check and tests. Arguments go to pytest: bash scripts/test.sh -k ply
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
say "ruff"
ruff check .
ruff format --check .
say "pytest"
python -m pytest "$@"
say "all tests passed"
