#!/usr/bin/env bash
# Reconstruct captures and splits without and with fixing, into one table (CSV, Markdown, plot). The
# same command resumes a stopped sweep. Settings:
#   SCENES   folders of captures, or folders of such folders
#   PROCEDURAL  number of procedural captures to add (0)
#   EVERY    train on every N-th view ("8");  SEEDS ("0")
#   OUT      folder of the results (results/distil)
#   FACTOR   photos at 1/FACTOR (4);  STEPS (1500);  CAP  most Gaussians, 0: no limit (20000)
#   GPUS     such as "0 1 2 3": one run on each at a time
#   SHARD    such as 3/8, for the third job of an array of eight that share OUT
# Further arguments are passed to python -m benchmarks.quality.distil (--help).
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}"; exit 0; }
fail() { echo "error: $1" >&2; exit 2; }

[ -n "${SCENES:-}${PROCEDURAL:-}" ] || fail "name the captures: SCENES=path/to/folder bash scripts/recon_all.sh"
CAPTURES=()
for folder in ${SCENES:-}; do
    [ -d "$folder" ] || fail "$folder is not a folder"
    CAPTURES+=("$(realpath "$folder")")
done
OUT=$(realpath -m "${OUT:-results/distil}")

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
# shellcheck disable=SC2086
exec "$PYTHON" -m benchmarks.quality.distil "${CAPTURES[@]}" --procedural "${PROCEDURAL:-0}" --results "$OUT" --every ${EVERY:-8} \
    --seeds ${SEEDS:-0} --data_factor "${FACTOR:-4}" --steps "${STEPS:-1500}" \
    --cap "${CAP:-20000}" --shard "${SHARD:-1/1}" ${GPUS:+--gpus $GPUS} "$@"
