#!/usr/bin/env bash
# One machine: a server runs for as long as one command needs it.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: JUDGE="vllm serve MODEL ..." launch/with_judge.sh COMMAND [ARGUMENT ...]

Starts the server, waits until it is healthy, runs the command, stops the server. Ends with the command's exit code.

  JUDGE="vllm serve ..." launch/with_judge.sh aligndistill run configs/hh.yaml --until rankings

  JUDGE          the command that starts the server (required)
  JUDGE_URL      http://127.0.0.1:8000   healthy when JUDGE_URL/health answers with 200
  JUDGE_SECONDS  1800                    how long a start may take
  JUDGE_LOG      judge.log               the server's output, appended to
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

start_judge
"$@"
