#!/usr/bin/env bash
# All three phases on the code installed on this machine, and a page that shows what happened.
# Usage: bash launch/local.sh [FIELD=VALUE ...] [--source FOLDER ...]
set -euo pipefail
export SNOWCODER_CALLER=$PWD
source "$(dirname "$0")/setup.sh"

set_up_environment .venv requirements.txt requirements-encoder.txt
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
exec .venv/bin/snowcoder run configs/local.yaml "$@"
