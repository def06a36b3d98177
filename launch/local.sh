#!/usr/bin/env bash
# Trains with N processes on this machine:
#
#     launch/local.sh N --config … --workdir … [flags of recon_ad.train]
#
# Process i takes GPU i, where there are GPUs; one process alone takes all of them. Without any,
# JAX_NUM_CPU_DEVICES=K in front gives each process K simulated devices.
#
# Exit status: 0; 75 if it was asked to stop (SIGTERM, Ctrl-C) and goes on when started again; else
# that of the process that ended first, 128 + n where signal n killed it.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "the number of processes comes first: launch/local.sh N --config … --workdir …"
processes=$1
shift
[[ $# -gt 0 ]] || fail "flags of recon_ad.train are missing: launch/local.sh $processes --config … --workdir …"
command -v python >/dev/null || fail "there is no python on PATH: source .venv/bin/activate"

run=(python -m recon_ad.train "$@")
[[ $processes -gt 1 ]] || exec "${run[@]}"

port=$(python -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=localhost:$port JAX_NUM_PROCESSES=$processes

# What all find wrong is said once: by the first that can make a file of its name in here.
RECON_AD_TOLD=$(mktemp -d)
export RECON_AD_TOLD
trap 'rm -rf "$RECON_AD_TOLD"' EXIT

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((i = 0; i < processes; i++)); do
  JAX_PROCESS_ID=$i JAX_LOCAL_DEVICE_IDS=$i "${run[@]}" &
  pids+=($!)
done

status=0 # of the first that failed
left=$processes
while ((left > 0)); do
  sleep 0.2 || true # which Ctrl-C ends, too
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    unset "pids[i]"
    left=$((left - 1))
    ((code != 0)) || continue
    case $code in
      75) how="stopped as asked; the same command goes on" ;;
      134) how="gave up, as another one is gone or does not answer" ;;
      *) how="ended with exit status $code" ;;
    esac
    ((code <= 128 || code == 134)) || how="was killed by signal $((code - 128)) ($(kill -l $((code - 128))))"
    echo "launch: process $i of $processes $how" >&2
    if ((status == 0)); then
      status=$code
      # By then the others have ended by themselves, unless they hang.
      deadline=$((SECONDS + 60))
    fi
  done
  if ((status != 0 && left > 0 && SECONDS > deadline)); then
    echo "launch: process ${!pids[*]} of $processes did not end within a minute: killed" >&2
    kill -KILL "${pids[@]}" 2>/dev/null || true
  fi
done
exit "$status"
