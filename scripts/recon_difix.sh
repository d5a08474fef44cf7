#!/usr/bin/env bash
# The same as recon_gsvar.sh with Difix as the fixer, which comes in a later version.
exec env FIXER="${FIXER:-difix}" bash "$(dirname "${BASH_SOURCE[0]}")/recon_gsvar.sh" "$@"
