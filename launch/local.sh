#!/usr/bin/env bash
# Train with N processes on this machine:
#
#     launch/local.sh N --config … --workdir … [flags of recon_ad.train]
#
# Process i uses GPU i; a single process uses all GPUs. Without GPUs, the variable
# JAX_NUM_CPU_DEVICES=K before the command gives each process K simulated devices.
#
# The exit status is 0 on success. It is 75 if the training was stopped (SIGTERM, Ctrl-C) and resumes
# when started again. Otherwise it is that of the process that failed first, or 128 + n if signal n
# killed it.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "the number of processes comes first: launch/local.sh N --config … --workdir …"
processes=$1
shift
[[ $# -gt 0 ]] || fail "flags of recon_ad.train are missing: launch/local.sh $processes --config … --workdir …"
command -v python >/dev/null || fail "no python on PATH: source .venv/bin/activate"

run=(python -m recon_ad.train "$@")
[[ $processes -gt 1 ]] || exec "${run[@]}"

port=$(python -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=localhost:$port JAX_NUM_PROCESSES=$processes

# An error that all processes find is printed once, by the first process that can create a file for
# it in this folder.
RECON_AD_TOLD=$(mktemp -d)
export RECON_AD_TOLD
trap 'rm -rf "$RECON_AD_TOLD"' EXIT

pids=()
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((i = 0; i < processes; i++)); do
  JAX_PROCESS_ID=$i JAX_LOCAL_DEVICE_IDS=$i "${run[@]}" &
  pids+=($!)
done

status=0 # exit status of the first process that failed
left=$processes
while ((left > 0)); do
  sleep 0.2 || true # Ctrl-C also ends the sleep
  for i in "${!pids[@]}"; do
    kill -0 "${pids[i]}" 2>/dev/null && continue
    code=0
    wait "${pids[i]}" || code=$?
    unset "pids[i]"
    left=$((left - 1))
    ((code != 0)) || continue
    case $code in
      75) how="stopped as requested; the same command resumes" ;;
      134) how="gave up, because another process has ended or does not answer" ;;
      *) how="ended with exit status $code" ;;
    esac
    ((code <= 128 || code == 134)) || how="was killed by signal $((code - 128)) ($(kill -l $((code - 128))))"
    echo "launch: process $i of $processes $how" >&2
    if ((status == 0)); then
      status=$code
      # The others end by themselves within this time unless they hang.
      deadline=$((SECONDS + 60))
    fi
  done
  if ((status != 0 && left > 0 && SECONDS > deadline)); then
    echo "launch: process ${!pids[*]} of $processes did not end within a minute: killed" >&2
    kill -KILL "${pids[@]}" 2>/dev/null || true
  fi
done
exit "$status"
