#!/usr/bin/env bash
# What tpu.sh does on each worker of a TPU: install, start RECIPE [FIELD=VALUE ...], stop.
# `snowcoder train` finds the other workers by itself. It is started again after every end but a
# done one (0) and a fault of the input (2), and writes snowcoder.log beside the recipe.
set -euo pipefail
cd "$(dirname "$0")/../.."

install() {
  # The images carry Python 3.10. uv brings another one.
  python3 -m pip install --quiet --user uv
  local uv="$HOME/.local/bin/uv" jax
  jax=$(sed -n 's/^\(jax==[0-9.]*\).*/\1/p' requirements.txt)
  "$uv" venv --quiet --python 3.11 .venv
  "$uv" pip install --quiet --python .venv/bin/python --no-deps -r requirements.txt \
    -r requirements-encoder.txt -r launch/dataflow/requirements.txt # the last for gs://
  "$uv" pip install --quiet --python .venv/bin/python "jax[tpu]==${jax#jax==}"
  "$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
  .venv/bin/snowcoder check --help >/dev/null
}

supervise() {
  local code
  while true; do
    code=0
    .venv/bin/snowcoder train "$@" || code=$?
    echo "worker.sh: snowcoder train ended with $code"
    if [ "$code" -eq 0 ] || [ "$code" -eq 2 ] || [ -e stopping ]; then
      exit "$code"
    fi
    # Long enough for the other workers to end, too.
    sleep "${RESTART_SECONDS:-15}"
  done
}

start() {
  if [ -f supervisor.pid ] && kill -0 "$(cat supervisor.pid)" 2>/dev/null; then
    echo "worker.sh: training runs already; stop it first." >&2
    exit 2
  fi
  rm -f stopping
  # In a session of its own, so that it outlives the connection.
  setsid nohup bash launch/tpu/worker.sh supervise "$@" >>snowcoder.log 2>&1 </dev/null &
  echo $! >supervisor.pid
}

stop() {
  touch stopping
  if [ -f supervisor.pid ]; then
    pkill -TERM -P "$(cat supervisor.pid)" || true
  fi
}

"$@"
