#!/usr/bin/env bash
# One machine, one process per GPU.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/local.sh CONFIG [CONFIG ...] [section.key=value ...]

Runs `aligndistill run` under DeepSpeed on the GPUs of this machine.

  NUM_GPUS=4 launch/local.sh ...                 the first four GPUs
  CUDA_VISIBLE_DEVICES=2,3 launch/local.sh ...   these two (DeepSpeed ignores this one where NUM_GPUS is set)
  MASTER_PORT=29501 launch/local.sh ...          the port where the processes meet (29500); a second run on the machine needs another
TEXT
}

case "${1:-}" in
  "") usage >&2; exit 2 ;;
  -h | --help) usage; exit 0 ;;
esac

exec deepspeed ${NUM_GPUS:+--num_gpus "$NUM_GPUS"} ${MASTER_PORT:+--master_port "$MASTER_PORT"} --no_local_rank --module aligndistill run "$@"
