#!/usr/bin/env bash
# Evaluate on all GPUs (or the CPU): bash scripts/eval.sh inference.checkpoint_dir=WEIGHTS [settings]
# GPUS  processes (default: as many as there are GPUs, at least 1)
# CONFIG  the settings' file (configs/Efficient-LVSM.yaml)
set -euo pipefail
config=${CONFIG:-configs/Efficient-LVSM.yaml}
[[ $config = /* ]] || [[ ! -e $config ]] || config=$PWD/$config
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus=${GPUS:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
if ((gpus > 1)); then
    exec torchrun --standalone --nproc_per_node "$gpus" inference.py --config "$config" "$@"
fi
exec python inference.py --config "$config" "$@"
