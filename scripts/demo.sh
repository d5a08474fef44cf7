#!/usr/bin/env bash
# The main job from a fresh checkout: set up, turn a capture into splats, fix novel views, distil
# them back, and report the result without and with fixing.
#   bash scripts/demo.sh                     the embedded, procedural scene -> results/demo
#   bash scripts/demo.sh CAPTURE [FLAG ...]  your own folder or video -> results/<its name>
# Further flags are passed to the trainer. Settings are environment variables:
#   STEPS    optimisation steps            (30000 with a GPU, 1500 without)
#   EVERY    train on every N-th view and measure the others   (demo: 8; your capture: hold out
#            every 8th)
#   FACTOR   photos at 1/FACTOR size       (default: no side over 1600 pixels with a GPU, 500 without)
#   IMAGE_FOLDER   folder of the photos in the capture, if not the usual one
#   RESULT   folder of the result
# Without a GPU there are at most 20,000 Gaussians, which bounds the time of a step.
# Run it again to resume a stopped run; use another RESULT for other STEPS or FACTOR.
set -euo pipefail
[ "${1:-}" != --help ] || { sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}"; exit 0; }

fail() { echo "error: $1" >&2; exit 2; }

[[ ${STEPS:-1} =~ ^[1-9][0-9]*$ ]] || fail "STEPS=$STEPS is not a number of steps, such as 3000"
[[ ${FACTOR:-0} =~ ^[0-9]+$ ]] || fail "FACTOR=$FACTOR is not a whole number, such as 4"
[ $# -eq 0 ] || [ -e "$1" ] || fail "$1 does not exist; give the folder of a capture, or a video"

CAPTURE=${1:+$(realpath "$1")}
RESULT=${RESULT:+$(realpath -m "$RESULT")}
[ $# -eq 0 ] || shift
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    STEPS=${STEPS:-30000} PRESET=(default)
    say "GPU found: $STEPS steps"
else
    STEPS=${STEPS:-1500} PRESET=(mcmc --strategy.cap-max 20000)
    say "no GPU: small pictures and $STEPS steps, to finish in minutes"
fi
if [ -z "$CAPTURE" ]; then
    CAPTURE=captures/demo RESULT=${RESULT:-results/demo} FACTOR=${FACTOR:-2} EVERY=${EVERY:-8}
    if [ ! -d "$CAPTURE" ]; then
        say "rendering the embedded scene into $CAPTURE"
        python -m scenes.procedural "$CAPTURE" --seed 0 --views 60 --width 512 --height 384
    fi
else
    NAME=$(basename "$CAPTURE")
    [ -d "$CAPTURE" ] || NAME=${NAME%.*}
    RESULT=${RESULT:-results/$NAME}
fi
SCALER=$(awk "BEGIN { print $STEPS / 30000 }")

say "reconstructing $CAPTURE without and with fixing into $RESULT"
python -m examples.gsplat.simple_trainer_difix3d "${PRESET[@]}" --data_dir "$CAPTURE" \
    --data_factor "${FACTOR:-0}" --result_dir "$RESULT" --steps_scaler "$SCALER" ${EVERY:+--test_every "$EVERY"} \
    ${IMAGE_FOLDER:+--image_folder "$IMAGE_FOLDER"} --control "$@"
say "done: open $RESULT/report/index.html, or explore the splats with"
echo "   source .venv/bin/activate && python -m splats.view '$RESULT'"
