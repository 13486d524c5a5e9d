#!/usr/bin/env bash
# One machine: the judge's server and the training take turns on the same GPUs.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: JUDGE="vllm serve MODEL ..." launch/judge_then_train.sh CONFIG [CONFIG ...] [section.key=value ...]

Runs a config whose judge is a server on this machine, with all GPUs for whatever is being done:

  1. start the server, wait until it is healthy, run to the rankings, stop it
  2. train all students on all GPUs, and let them answer the held-out prompts (launch/local.sh)
  3. start the server again, evaluate, write the report, stop it

A step whose work is finished is skipped, so the same command resumes. Students that need the judge while they train (PPO with a
judge as its reward) need GPUs of their own for the server: see launch/README.md.

  JUDGE          the command that starts the server (required)
  JUDGE_URL      http://127.0.0.1:8000   healthy when JUDGE_URL/health answers with 200
  JUDGE_SECONDS  1800                    how long a start may take
  JUDGE_LOG      judge.log               the server's output, appended to
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

url="${JUDGE_URL:-http://127.0.0.1:8000}"
log="${JUDGE_LOG:-judge.log}"
here="$(dirname "$0")"
judge=""

start_judge() {
  if curl --silent --fail --output /dev/null --max-time 5 "$url/health"; then
    echo "error: a server answers at $url already: stop it, or set JUDGE_URL to where JUDGE will listen" >&2
    exit 4
  fi
  echo "judge: starting, output in $log"
  # A session of its own: its workers are stopped with it, and Ctrl-C reaches it only through us.
  setsid bash -c "$JUDGE" >>"$log" 2>&1 &
  judge=$!
  local deadline=$((SECONDS + ${JUDGE_SECONDS:-1800}))
  until curl --silent --fail --output /dev/null --max-time 5 "$url/health"; do
    if ! kill -0 "$judge" 2>/dev/null; then
      judge=""
      echo "error: the judge's server ended before it was healthy. The end of $log:" >&2
      tail -n 20 "$log" >&2
      exit 4
    fi
    if ((SECONDS > deadline)); then
      echo "error: the judge's server was not healthy within ${JUDGE_SECONDS:-1800} s (JUDGE_SECONDS). The end of $log:" >&2
      tail -n 20 "$log" >&2
      exit 4
    fi
    sleep 1
  done
  echo "judge: healthy at $url"
}

stop_judge() {
  [[ -n "$judge" ]] || return 0
  kill -TERM -- "-$judge" 2>/dev/null || true
  for _ in {1..60}; do
    kill -0 -- "-$judge" 2>/dev/null || break
    sleep 0.5
  done
  kill -KILL -- "-$judge" 2>/dev/null || true
  wait "$judge" 2>/dev/null || true
  judge=""
  echo "judge: stopped"
}

trap stop_judge EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

is_finished() {
  local stage="$1" plan
  shift
  plan="$(aligndistill plan "$@")"
  grep --quiet --extended-regexp "^finished +$stage " <<<"$plan"
}

if ! is_finished rankings "$@"; then
  start_judge
  aligndistill run "$@" --until rankings
  stop_judge
fi
"$here/local.sh" "$@" --until answers
if ! is_finished evaluation "$@"; then
  start_judge
fi
aligndistill run "$@"
