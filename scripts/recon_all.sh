#!/usr/bin/env bash
# Captures and splits, each reconstructed without and with fixing, in one table (CSV, Markdown,
# plot). Stopped, it goes on when the same command is given again. Settings:
#   SCENES   folders of captures, or one folder of such folders
#   PROCEDURAL  so many procedural captures as well (0)
#   EVERY    train on every N-th view ("8");  SEEDS ("0")
#   OUT      where everything goes (results/distil)
#   FACTOR   photos at 1/FACTOR (4);  STEPS (1500);  CAP  most Gaussians, 0: no limit (20000)
#   GPUS     such as "0 1 2 3": a run on each at the same time
#   SHARD    such as 3/8, for the third job of an array of eight that share OUT
# Further arguments go to python -m benchmarks.quality.distil (--help).
set -euo pipefail
fail() { echo "error: $1" >&2; exit 2; }

[ -n "${SCENES:-}${PROCEDURAL:-}" ] || fail "name the captures: SCENES=path/to/folder bash scripts/recon_all.sh"
CAPTURES=()
for folder in ${SCENES:-}; do
    [ -d "$folder" ] || fail "$folder is not a folder"
    if [ -d "$folder/images" ] || [ -f "$folder/transforms.json" ] || [ -d "$folder/sparse" ]; then
        CAPTURES+=("$(realpath "$folder")")
    else
        for inner in "$folder"/*/; do CAPTURES+=("$(realpath "$inner")"); done
    fi
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
