#!/usr/bin/env bash
# The whole chain in one command: scenes -> triplets -> stages 0, 1 and 2 -> proof on unseen scenes.
# It takes no arguments; the same command resumes a stopped or killed run. Settings:
#   OUT       folder of everything (results/small)
#   PRESET    mini, small, original-d16, original-d24, or a .json of sizes (mini)
#   SCENES    procedural scenes to train on (40);  HELD  others to evaluate on (20)
#   VIEWS WIDTH HEIGHT  photos of a procedural scene and their size (24 256 192)
#   CAPTURES  folders of captures to train on too;  TESTS  folders of captures to evaluate on
#   EVERY     sparse reconstructions of CAPTURES train on every N-th photo ("2 3 4 6 8")
#   MODEL     weights to evaluate instead of training, as checkpoints/gsvar-mini.safetensors
#   IMAGES    which photos of those captures (images_4)
#   RECON     optimisation steps of a reconstruction (1200)
#   STEPS     steps of stages 0, 1 and 2 ("1000 200 4000")
#   BATCH     samples per process, half as many in stage 2 (8);  PROCESSES  more than 1: torchrun (1)
#   PRECISION 0 float32, 1 fp16, 2 bf16 (2);  WORKERS  reconstructions at a time (1);  SEED (0)
#   CONTROLS  minutes of training for each U-Net to compare with; 0: none (0)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
OUT=${OUT:-results/small} PRESET=${PRESET:-mini} SEED=${SEED:-0}
SCENES=${SCENES:-40} HELD=${HELD:-20} CAPTURES=${CAPTURES:-} TESTS=${TESTS:-} IMAGES=${IMAGES:-images_4} EVERY=${EVERY:-2 3 4 6 8}
VIEWS=${VIEWS:-24} WIDTH=${WIDTH:-256} HEIGHT=${HEIGHT:-192} RECON=${RECON:-1200}
read -r STEPS0 STEPS1 STEPS2 <<< "${STEPS:-1000 200 4000}"
BATCH=${BATCH:-8} PROCESSES=${PROCESSES:-1} PRECISION=${PRECISION:-2} WORKERS=${WORKERS:-1}
CONTROLS=${CONTROLS:-0}
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python
    [ ! -x .venv/bin/python ] || PYTHON=.venv/bin/python
fi
LAUNCH=("$PYTHON")
[ "$PROCESSES" = 1 ] || LAUNCH=("$PYTHON" -m torch.distributed.run --standalone "--nproc-per-node=$PROCESSES")

# Artifacts from nearly none to severe: early and late renders, of training views and others.
curate() { # sparse captures' train_every, flags that say which scenes
    local every=$1 common=("${@:2}" --max_steps "$RECON" --densify mcmc --workers "$WORKERS")
    for n in $every; do
        "$PYTHON" gen_data/gen_data.py "${common[@]}" --strategy sparse --train_every "$n" --render_iter $((RECON / 2)) "$RECON"
    done
    "$PYTHON" gen_data/gen_data.py "${common[@]}" --strategy underfitting \
        --render_iter $((RECON * 3 / 8)) $((RECON * 7 / 12)) "$RECON"
}
procedural() { # folder, scenes, first seed
    curate 4 --base_path "$1" --procedural "$2" --seed "$3" --views "$VIEWS" --width "$WIDTH" --height "$HEIGHT" --cap_max 10000
}
fail() { echo "error: $1" >&2; exit 2; }
check() { # captures: folders, each with a name of its own
    local seen=" "
    for capture in $1; do
        local name=$(basename "$capture")
        [ -d "$capture" ] || fail "$capture is not a folder (CAPTURES, TESTS)"
        [[ "$seen" != *" $name "* ]] || fail "two captures are called $name (CAPTURES, TESTS): link one under another name"
        seen+="$name "
    done
}
captures() { # captures, folder, train_every
    local names=()
    rm -rf "$2/links" # captures may have been removed from the list
    mkdir -p "$2/links"
    for capture in $1; do
        ln -sfn "$(realpath "$capture")" "$2/links/$(basename "$capture")"
        names+=("\"$(basename "$capture")\"")
    done
    (IFS=,; echo "{\"train\": [${names[*]}], \"val\": []}") > "$2/split.json" # procedural scenes validate
    curate "$3" --base_path "$2/links" --output_path "$2" --image_folder "$IMAGES" --cap_max 20000
}
list() { # folder
    "$PYTHON" gen_data/gen_data_json.py --base_path "$1" --output "$1/data.json" --split_file "$1/split.json" \
        --strategies underfitting sparse --candidates 1 --warp --workers "$WORKERS"
}
train() {
    COMMON=(--json_path="$LEARN" --results="$OUT" --fp16="$PRECISION" --seed="$SEED"
        --fit=squash --hflip=True --wp=0.1 --workers=2 --num_samples_eval=$((5 * BATCH)))
    "${LAUNCH[@]}" VQVAE_train.py "${COMMON[@]}" --preset="$PRESET" --batch_size="$BATCH" \
        --steps="$STEPS0" --tblr=1e-3 --exp_name=vq
    "${LAUNCH[@]}" VAR_train.py "${COMMON[@]}" --preset="$PRESET" --vae_model_path="$OUT/vq/vqvae-ckpt-last.pth" \
        --batch_size="$BATCH" --steps="$STEPS1" --tblr=1e-3 --alng=1e-2 --corrupt=0.1 --cache_dir="$OUT/cache" --exp_name=var
    # trained on the render's own tokens, which are cheap; used with the tokens of stage 1
    "${LAUNCH[@]}" VAE_train.py "${COMMON[@]}" --var_pretrain_path="$OUT/var/ar-ckpt-last.pth" --own_tokens=True \
        --batch_size=$(((BATCH + 1) / 2)) --train_decoder=True --ema=0.998 --use_ref_drop=True --ref_drop=0.15 \
        --photometric=0.6 --pixel_loss=l2 --harm=3 --steps="$STEPS2" --tblr=1e-3 --exp_name=bridge
    MODEL=$OUT/gsvar.safetensors
    "$PYTHON" -m models.checkpoints convert "$OUT/bridge/vae-ckpt-last.pth" "$MODEL" --bf16
}

numbers() { # name, least, values
    for value in $3; do
        [[ "$value" =~ ^[0-9]+$ && "$value" -ge "$2" ]] || fail "$1=$3: whole numbers from $2 on"
    done
}

main() {
    [ "${1:-}" != --help ] || { sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}"; exit 0; }
    [ $# = 0 ] || fail "$1: settings go before the command, as in SCENES=20 PRESET=mini bash scripts/train_small.sh"
    check "$CAPTURES $TESTS" # no capture is both trained and evaluated on
    for name in SCENES HELD VIEWS WIDTH HEIGHT RECON BATCH PROCESSES WORKERS; do
        numbers "$name" 1 "${!name:-none}"
    done
    [ -n "$STEPS2" ] || fail "STEPS=$STEPS: three numbers, of stages 0, 1 and 2"
    numbers STEPS 1 "$STEPS0 $STEPS1 $STEPS2"
    numbers EVERY 2 "$EVERY"
    numbers SEED 0 "$SEED"
    [[ "$PRECISION" =~ ^[012]$ ]] || fail "PRECISION=$PRECISION: 0, 1 or 2"
    [[ "$CONTROLS" =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "CONTROLS=$CONTROLS: minutes, or 0"
    [[ " mini small tiny original-d16 original-d24 " == *" $PRESET "* || -f "$PRESET" ]] \
        || fail "PRESET=$PRESET: mini, small, original-d16, original-d24, or a .json of sizes"
    [ -z "${MODEL:-}" ] || "$PYTHON" -m models.checkpoints inspect "$MODEL" > /dev/null || exit 2
    LEARN=$OUT/scenes/data.json JUDGE=("$OUT/held/data.json")
    if [ -z "${MODEL:-}" ] || [ "$CONTROLS" != 0 ]; then
        procedural "$OUT/scenes" "$SCENES" "$SEED"
        list "$OUT/scenes"
        if [ -n "$CAPTURES" ]; then
            captures "$CAPTURES" "$OUT/captures" "$EVERY"
            list "$OUT/captures"
            LEARN=$LEARN,$OUT/captures/data.json*3
        fi
    fi
    procedural "$OUT/held" "$HELD" $((SEED + 100000))
    list "$OUT/held"
    if [ -n "$TESTS" ]; then
        captures "$TESTS" "$OUT/tests" 4
        list "$OUT/tests"
        JUDGE+=("$OUT/tests/data.json")
    fi
    if [ -z "${MODEL:-}" ]; then train; fi

    FIXERS=("gsvar=$MODEL" "gsvar_noref=$MODEL:noref" "gsvar_photo=$MODEL:photo" "gsvar_noalpha=$MODEL:noalpha"
        "bridge_only=$MODEL:own" "truth_tokens=$MODEL:truth" nlm=nlm oracle=oracle)
    if [ "$CONTROLS" != 0 ]; then
        for ref in use_ref no_use_ref; do
            "$PYTHON" -m benchmarks.quality.unet --json_path "$LEARN" --out "$OUT/unet_$ref" "--$ref" --minutes "$CONTROLS" \
                --size "$HEIGHT" "$WIDTH" --batch_size $(((BATCH + 1) / 2)) --seed "$SEED" --photometric 0.6 --pixel_loss l2 --harm 3
            FIXERS+=("unet_$ref=$OUT/unet_$ref/unet.safetensors")
        done
    fi
    "$PYTHON" -m benchmarks.quality.proof "${JUDGE[@]}" --splits train val --per_group 24 --out "$OUT/proof" --fixers "${FIXERS[@]}"
}
main "$@" # bash has read all of main by now: the file may change while it runs
exit
