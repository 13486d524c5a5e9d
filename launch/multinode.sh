#!/usr/bin/env bash
# Several machines that share a file system, one process per GPU.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: HOSTFILE=FILE launch/multinode.sh CONFIG [CONFIG ...] [section.key=value ...]

Runs `aligndistill run` under DeepSpeed on the machines that HOSTFILE lists (see launch/hostfile.example).

With ssh: start it once, on any of the machines. It needs pdsh, and ssh without a password to all of them.

  HOSTFILE=hosts launch/multinode.sh ...

Without ssh: start it on every machine at about the same time, each with its own rank in the order of HOSTFILE.

  HOSTFILE=hosts NODE_RANK=0 MASTER_ADDR=worker-1 launch/multinode.sh ...
  HOSTFILE=hosts NODE_RANK=1 MASTER_ADDR=worker-1 launch/multinode.sh ...

MASTER_PORT (29500) is the port of the first machine where the processes meet.
TEXT
}

case "${1:-}" in
  "") usage >&2; exit 2 ;;
  -h | --help) usage; exit 0 ;;
esac

# DeepSpeed only warns about a missing hostfile and then trains on this machine alone.
if [[ ! -f "${HOSTFILE:-}" ]]; then
  echo "error: there is no hostfile '${HOSTFILE:-}': set HOSTFILE to a file like launch/hostfile.example" >&2
  exit 2
fi

meeting=(--hostfile "$HOSTFILE" --master_port "${MASTER_PORT:-29500}")
if [[ -n "${NODE_RANK:-}" ]]; then
  if [[ -z "${MASTER_ADDR:-}" ]]; then
    echo "error: NODE_RANK needs MASTER_ADDR, the first machine of $HOSTFILE" >&2
    exit 2
  fi
  meeting+=(--no_ssh --node_rank "$NODE_RANK")
fi
if [[ -n "${MASTER_ADDR:-}" ]]; then
  meeting+=(--master_addr "$MASTER_ADDR")
fi

exec deepspeed "${meeting[@]}" --no_local_rank --module aligndistill run "$@"
