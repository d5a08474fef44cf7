# Sourced by the other scripts: launch SCRIPT [settings] starts it with $CONFIG, as many times as
# there are GPUs ($GPUS); launch_once SCRIPT [settings] once. Neither returns.
set -euo pipefail
config=${CONFIG:-configs/Efficient-LVSM.yaml}
[[ $config = /* ]] || [[ ! -e $config ]] || config=$PWD/$config
cd "$(dirname "${BASH_SOURCE[0]}")/.."

launch() {
    local gpus=${GPUS:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
    if ((gpus > 1)); then
        exec torchrun --standalone --nproc_per_node "$gpus" "$1" --config "$config" "${@:2}"
    fi
    launch_once "$@"
}

launch_once() {
    exec python "$1" --config "$config" "${@:2}"
}
