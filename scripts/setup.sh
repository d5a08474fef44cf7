#!/usr/bin/env bash
# Sourced by the other scripts: creates .venv once; installs again when requirements.txt changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
SECONDS=0

say() { printf '\n== %s (%d s)\n' "$1" "$SECONDS"; }

PYTHON=${PYTHON:-python3}
if ! "$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))'; then
    echo "error: $("$PYTHON" --version 2>&1) found, but Python 3.10, 3.11 or 3.12 is needed; set PYTHON=/path/to/python" >&2
    exit 2
fi
if ! cmp -s requirements.txt .venv/requirements.installed; then
    say "installing requirements.txt into .venv (several GB; minutes at the first run)"
    "$PYTHON" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt .venv/requirements.installed
fi
source .venv/bin/activate
