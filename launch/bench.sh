#!/usr/bin/env bash
# One benchmark, in its own environment with the peers it is measured against.
# Usage: bash launch/bench.sh NAME [ARGUMENT ...]; the last line printed is one JSON object.
set -euo pipefail
source "$(dirname "$0")/setup.sh"

name=${1:-}
if [ ! -f "benchmarks/$name.py" ]; then
  echo "Usage: bash launch/bench.sh NAME, where NAME is one of:" \
    "$(find benchmarks -name '*.py' -printf '%f ' | sed 's/[.]py//g')" >&2
  exit 2
fi
shift
locks=(requirements.txt requirements-encoder.txt)
environment=.venv
if [ -f "benchmarks/requirements-$name.txt" ]; then
  locks+=("benchmarks/requirements-$name.txt")
  environment=.venv-bench-$name
fi
if [ "$name" = synthesis ]; then
  set_up_environment .venv-vllm launch/vllm/requirements-cpu.txt launch/vllm/requirements-cpu-torch.txt
fi
set_up_environment "$environment" "${locks[@]}"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
exec "$PYTHON" "benchmarks/$name.py" "$@"
