#!/usr/bin/env bash
# The whole chain in one command: procedural scenes -> triplets -> stages 0, 1 and 2 -> test and report.
# Stopped by Ctrl-C or by force, it goes on when the same command is given again. Settings:
#   OUT       where everything goes (results/small)
#   PRESET    tiny, small, original-d16, original-d24, or a .json of sizes (tiny)
#   SCENES    procedural scenes; one in seven is held out (56)
#   VIEWS WIDTH HEIGHT      of a scene (24 256 192)
#   STEPS     of the three stages ("4000 8000 4000")
#   BATCH     samples a process (8);  PROCESSES (1: python; more: torchrun)
#   PRECISION 0 float32, 1 fp16, 2 bf16 (2);  WORKERS that reconstruct (1)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:-results/small}
PRESET=${PRESET:-tiny}
SCENES=${SCENES:-56}
VIEWS=${VIEWS:-24} WIDTH=${WIDTH:-256} HEIGHT=${HEIGHT:-192}
read -r STEPS0 STEPS1 STEPS2 <<< "${STEPS:-4000 8000 4000}"
BATCH=${BATCH:-8} PROCESSES=${PROCESSES:-1} PRECISION=${PRECISION:-2} WORKERS=${WORKERS:-1}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
LAUNCH=("$PYTHON")
[ "$PROCESSES" = 1 ] || LAUNCH=("$PYTHON" -m torch.distributed.run --standalone "--nproc-per-node=$PROCESSES")

curate() { # strategy, steps of the schedule, iterations to render, further flags
    local strategy=$1 steps=$2 iterations=$3
    shift 3
    # shellcheck disable=SC2086  # iterations are several words
    "$PYTHON" gen_data/gen_data.py --base_path "$OUT/scenes" --procedural "$SCENES" --seed 0 \
        --views "$VIEWS" --width "$WIDTH" --height "$HEIGHT" --strategy "$strategy" \
        --render_iter $iterations --max_steps "$steps" --densify mcmc --cap_max 10000 --workers "$WORKERS" "$@"
}
curate underfitting 600 "100 300 600"
curate sparse 600 "300 600" --train_every 4
curate random 600 "600"
curate cross 600 "600"
"$PYTHON" gen_data/gen_data_json.py --base_path "$OUT/scenes" --output "$OUT/data.json" \
    --split_file "$OUT/split.json" --warp --workers "$WORKERS"

COMMON=(--json_path="$OUT/data.json" --results="$OUT" --batch_size="$BATCH" --fp16="$PRECISION" --hflip=True --wp=0.2)
"${LAUNCH[@]}" VQVAE_train.py "${COMMON[@]}" --preset="$PRESET" --steps="$STEPS0" --tblr=1e-3 --exp_name=vqvae
"${LAUNCH[@]}" VAR_train.py "${COMMON[@]}" --preset="$PRESET" --vae_model_path="$OUT/vqvae/vqvae-ckpt-best.pth" \
    --steps="$STEPS1" --tblr=1e-3 --alng=1e-2 --corrupt=0.1 --use_ref_drop=True --exp_name=var
"${LAUNCH[@]}" VAE_train.py "${COMMON[@]}" --var_pretrain_path="$OUT/var/ar-ckpt-best.pth" \
    --steps="$STEPS2" --tblr=5e-4 --train_decoder=True --crops=8 --cache_dir="$OUT/cache" --use_ref_drop=True \
    --exp_name=bridge
"$PYTHON" test_tile.py --var_test_path="$OUT/bridge/vae-ckpt-best.pth" --use_bridge=True \
    --json_path="$OUT/data.json" --testset_path="$OUT/test" --limit="${LIMIT:-100}"
