#!/usr/bin/env bash
# Time incremental inference: bash scripts/eval_efficiency.sh training.num_input_views=64 [settings]
# CONFIG  the settings' file (configs/Efficient-LVSM.yaml)
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch_once eval_efficiency.py "$@"
