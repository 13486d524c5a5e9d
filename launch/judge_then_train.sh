#!/usr/bin/env bash
# One machine: the judge's server and the training take turns on the same GPUs.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: JUDGE="vllm serve MODEL ..." launch/judge_then_train.sh CONFIG [CONFIG ...] [section.key=value ...]

Runs a config whose judge is a server on this machine, with all GPUs for whatever is being done:

  1. sample the candidates on all GPUs (launch/local.sh); not if a server is asked for them or for anything before them
  2. start the server, run to the rankings, stop it (launch/with_judge.sh)
  3. train the reward model and all students on all GPUs, and let them answer the held-out prompts (launch/local.sh)
  4. start the server again, evaluate, write the report, stop it

A step whose work is finished is skipped, so the same command resumes. Students that need the judge while they train (PPO with a
judge as its reward) need GPUs of their own for the server: see launch/README.md.

  JUDGE                                  the command that starts the server (required)
  JUDGE_URL, JUDGE_SECONDS, JUDGE_LOG    as for launch/with_judge.sh
  NUM_GPUS, MASTER_PORT                  as for launch/local.sh
TEXT
}

case "${1:-}" in
  "") usage >&2; exit 2 ;;
  -h | --help) usage; exit 0 ;;
esac
if [[ -z "${JUDGE:-}" ]]; then
  echo "error: set JUDGE to the command that starts the judge's server, such as JUDGE='vllm serve Qwen/Qwen3-32B --port 8000'" >&2
  exit 2
fi

here="$(dirname "$0")"
trap 'exit 143' TERM   # once the command that runs has ended, and stopped its server

# Whether something holds of the plan: a condition in Python about `stages` and `requests`, as `aligndistill plan --json` has them.
# Ends the script where there is no plan: bash ignores `set -e` in a function that is called as a condition.
planned() {
  local condition="$1" plan holds
  shift
  plan="$(aligndistill plan "$@" --json)" || exit
  holds="$(python3 -c "import json, sys; plan = json.load(sys.stdin); stages, requests = plan['stages'], plan['requests']; print(bool($condition))" \
    <<<"$plan")" || exit
  [[ "$holds" == True ]]
}

is_finished() {
  local stage="$1"
  shift
  planned "any(one['name'] == '$stage' and one['state'] == 'finished' for one in stages)" "$@"
}

# Whether the candidates that are still to be sampled are all by models of this machine, and nothing before them asks a server.
samples_here() {
  local names="[one['name'] for one in stages]"
  planned "any(one['stage'] == 'candidates' for one in requests) and
    all(one['server'] is None for one in requests if $names.index(one['stage']) <= $names.index('candidates'))" "$@"
}

if ! is_finished rankings "$@"; then
  if planned "any(one['name'] == 'candidates' and one['state'] != 'finished' for one in stages)" "$@"; then
    aligndistill run "$@" --until prompts   # data of the Hub is here before its requests are counted
    if samples_here "$@"; then
      "$here/local.sh" "$@" --until candidates
    fi
  fi
  "$here/with_judge.sh" aligndistill run "$@" --until rankings
fi
"$here/local.sh" "$@" --until answers
if is_finished evaluation "$@"; then
  aligndistill run "$@"
else
  "$here/with_judge.sh" aligndistill run "$@"
fi
