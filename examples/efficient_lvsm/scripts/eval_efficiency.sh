#!/usr/bin/env bash
# Time incremental inference: bash scripts/eval_efficiency.sh training.num_input_views=64 [settings]
# CONFIG  the settings' file (configs/Efficient-LVSM.yaml)
set -euo pipefail
config=${CONFIG:-configs/Efficient-LVSM.yaml}
[[ $config = /* ]] || [[ ! -e $config ]] || config=$PWD/$config
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python eval_efficiency.py --config "$config" "$@"
