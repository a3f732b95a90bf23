#!/usr/bin/env bash
# Format, types and tests. Usage: bash launch/test.sh [--all] [PYTEST-ARGUMENT ...]
# Without --all, tests marked `slow` are left out, and with them vLLM and its environment.
set -euo pipefail
source "$(dirname "$0")/setup.sh"

selection=(-m "not slow")
if [ "${1:-}" = --all ]; then
  selection=()
  shift
  set_up_environment .venv-vllm launch/vllm/requirements-cpu.txt \
    launch/vllm/requirements-cpu-torch.txt
fi
set_up_environment .venv-test requirements-test.txt requirements-encoder.txt
export JAX_PLATFORMS=cpu
# Test processes share what they compile.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$PWD/.jax_cache/tests}
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.5

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
# One process a core; the tests of a file stay together, since they share fixtures.
"$PYTHON" -m pytest "${selection[@]}" -n 2 --dist loadfile --durations=15 "$@"
