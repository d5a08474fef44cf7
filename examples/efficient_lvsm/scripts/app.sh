#!/usr/bin/env bash
# Incremental inference in the browser: bash scripts/app.sh --checkpoint WEIGHTS CAPTURE [...]
set -euo pipefail
exec python "$(dirname "${BASH_SOURCE[0]}")/../app.py" "$@"
