#!/usr/bin/env bash
# Long proofs: many kills, many samples. Usage: bash launch/soak.sh NAME [ARGUMENT ...]
set -euo pipefail
source "$(dirname "$0")/setup.sh"

name=${1:-}
if [ ! -f "tests/soak/$name.py" ]; then
  echo "Usage: bash launch/soak.sh NAME, where NAME is one of:" \
    "$(find tests/soak -name '*.py' -printf '%f ' | sed 's/[.]py//g')" >&2
  exit 2
fi
shift
set_up_environment .venv-test requirements-test.txt requirements-encoder.txt
export JAX_PLATFORMS=cpu
exec "$PYTHON" "tests/soak/$name.py" "$@"
