#!/usr/bin/env bash
# Evaluate on all GPUs (or the CPU): bash scripts/eval.sh inference.checkpoint_dir=WEIGHTS [settings]
# GPUS  processes (default: as many as there are GPUs, at least 1)
# CONFIG  the settings' file (configs/Efficient-LVSM.yaml)
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch inference.py "$@"
