#!/usr/bin/env bash
# One worker of a synthesis, on the GPUs of this machine that CUDA_VISIBLE_DEVICES names.
# Usage: bash launch/vllm/worker.sh ASK_FOLDER [--worker K --num-workers N]
# `snowcoder synthesize RECIPE` prints ASK_FOLDER, which holds ask.json; worker, seeds and answers
# lie on storage that all machines share (a file system, or gs://).
# It starts again after every end but a done one (0) and a fault of the input (2), at most
# MAX_RESTARTS times (default 100). The environment is made where it is missing: with
# SNOWCODER_VLLM=cpu the one for tests. SNOWCODER_VLLM_PYTHON names another interpreter.
set -euo pipefail
source "$(dirname "$0")/../setup.sh"

if [ $# -eq 0 ]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
fi
if [ -n "${SNOWCODER_VLLM_PYTHON:-}" ]; then
  PYTHON=$SNOWCODER_VLLM_PYTHON
elif [ "${SNOWCODER_VLLM:-gpu}" = cpu ]; then
  set_up_environment .venv-vllm launch/vllm/requirements-cpu.txt \
    launch/vllm/requirements-cpu-torch.txt
else
  set_up_environment .venv-vllm launch/vllm/requirements-gpu.txt
fi

# A stop (SIGTERM, Ctrl-C) goes to the worker, which ends with 75, and is not a reason to restart.
worker=0
stopped=0
trap 'stopped=1; [ "$worker" -eq 0 ] || kill -TERM "$worker" 2>/dev/null || true' TERM INT
restarts=0
while true; do
  "$PYTHON" -m snowcoder_jax.synthesis.worker "$@" &
  worker=$!
  # A stop that came just before had nobody to go to.
  [ "$stopped" -eq 0 ] || kill -TERM "$worker" 2>/dev/null || true
  code=0
  wait "$worker" || code=$?
  # The trap ends `wait` before the worker has ended.
  while kill -0 "$worker" 2>/dev/null; do
    code=0
    wait "$worker" || code=$?
  done
  if [ "$code" -eq 0 ] || [ "$code" -eq 2 ]; then
    exit "$code"
  fi
  # Stopped while Python was still starting it ends with 143, and has to be started again as well.
  if [ "$stopped" -eq 1 ]; then
    exit 75
  fi
  restarts=$((restarts + 1))
  if [ "$restarts" -gt "${MAX_RESTARTS:-100}" ]; then
    exit "$code"
  fi
  echo "worker.sh: the worker ended with $code; start $restarts of ${MAX_RESTARTS:-100} follows" >&2
  # In the background, so that a stop ends it at once.
  sleep "${RESTART_SECONDS:-10}" &
  worker=$!
  [ "$stopped" -eq 0 ] || kill -TERM "$worker" 2>/dev/null || true
  wait "$worker" || true
  worker=0
  if [ "$stopped" -eq 1 ]; then
    exit 75
  fi
done
