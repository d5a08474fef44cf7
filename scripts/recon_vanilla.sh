#!/usr/bin/env bash
# Reconstruct a DL3DV-Benchmark scene with plain 3D Gaussian Splatting. Settings are environment variables:
#   SCENE_ID DATA_BASE_DIR OUTPUT_BASE_DIR CUDA_DEV EVERY DATA_FACTOR CKPT PYTHON
# EVERY=N trains on every N-th view and tests on the others; CKPT continues from a checkpoint.
# Further arguments are passed to the trainer: bash scripts/recon_vanilla.sh --max_steps 7000
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}"; exit 0; }

SCENE_ID=${SCENE_ID:-ded5e4b46aedbef4cdb7bd1db7fc4cc5b00a9979ad6464bdadfab052cd64c101}
DATA_BASE_DIR=$(realpath -m "${DATA_BASE_DIR:-../dataset/DL3DV-10K-Benchmark}")
OUTPUT_BASE_DIR=$(realpath -m "${OUTPUT_BASE_DIR:-../dataset/DL3DV-val/output/3DGS/gsplat}")
EVERY=${EVERY:-50}
DATA_FACTOR=${DATA_FACTOR:-4}
CKPT=${CKPT:-}
[ -z "$CKPT" ] || CKPT=$(realpath -m "$CKPT")

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi

CUDA_VISIBLE_DEVICES=${CUDA_DEV:-0} "$PYTHON" -m examples.gsplat.simple_trainer_difix3d default \
    --data_dir "$DATA_BASE_DIR/$SCENE_ID/gaussian_splat" --data_factor "$DATA_FACTOR" \
    --result_dir "$OUTPUT_BASE_DIR/$SCENE_ID/$EVERY" --no-normalize-world-space \
    --test_every "$EVERY" --no-fix ${CKPT:+--ckpt "$CKPT"} "$@"
