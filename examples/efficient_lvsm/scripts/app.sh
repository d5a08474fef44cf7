#!/usr/bin/env bash
# The page: bash scripts/app.sh path/to/capture --checkpoint efficient_lvsm_inc_demo.pt [flags]
set -euo pipefail
app=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/app.py
exec python "$app" "$@"
