#!/usr/bin/env bash
# The main job, from a fresh checkout: set up, then turn a capture into splats with a report.
#   bash scripts/demo.sh            an embedded, procedurally made scene -> results/demo
#   bash scripts/demo.sh FOLDER     your own capture -> results/<name of the folder>
# Settings are environment variables:
#   STEPS   optimisation steps           (30000 with a GPU, 3000 without)
#   FACTOR  photos at 1/FACTOR size      (0: at most 1600 pixels wide with a GPU, 500 without)
# Without a GPU the number of Gaussians is capped (30,000), and with it the time of a step.
# Run it again to go on with a stopped run.
CAPTURE=${1:+$(realpath -m "$1")}
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    STEPS=${STEPS:-30000} PRESET=(default)
    say "a GPU is there: full length"
else
    STEPS=${STEPS:-3000} PRESET=(mcmc --strategy.cap-max 30000)
    say "no GPU: small pictures and $STEPS steps, so that it takes minutes"
fi
if [ -z "$CAPTURE" ]; then
    CAPTURE=captures/demo RESULT=results/demo FACTOR=${FACTOR:-2}
    if [ ! -d "$CAPTURE" ]; then
        say "making the embedded scene in $CAPTURE"
        python -m scenes.procedural "$CAPTURE" --seed 0 --views 60 --width 512 --height 384
    fi
else
    RESULT=results/$(basename "$CAPTURE") FACTOR=${FACTOR:-0}
fi
SCALER=$(python -c 'import sys; print(int(sys.argv[1]) / 30000)' "$STEPS")

say "reconstructing $CAPTURE into $RESULT"
python -m examples.gsplat.simple_trainer_difix3d "${PRESET[@]}" --data_dir "$CAPTURE" \
    --data_factor "$FACTOR" --result_dir "$RESULT" --steps_scaler "$SCALER" --no-fix
say "done: open $RESULT/report/index.html, or look around with: python -m splats.view $RESULT"
