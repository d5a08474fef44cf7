#!/usr/bin/env bash
# Train on all GPUs (or the CPU): bash scripts/train.sh training.dataset_path=... [settings]
# GPUS  processes (default: as many as there are GPUs, at least 1)
# CONFIG  the settings' file (configs/Efficient-LVSM.yaml)
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch train.py "$@"
