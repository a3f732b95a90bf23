#!/usr/bin/env bash
# What Dataflow's workers need: this project as a wheel, and an image with all that it imports.
# Usage: bash launch/dataflow/prepare.sh [IMAGE], such as REGION-docker.pkg.dev/PROJECT/REPO/snowcoder
# The wheel goes to build/dataflow/ (or to the folder WHEELS); it carries the code, and is made again
# whenever that changes. With IMAGE, Cloud Build builds and pushes an image: again when a lock changes.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${PYTHON:-}" ]; then
  source launch/setup.sh
  set_up_environment .venv-dataflow requirements.txt requirements-encoder.txt launch/dataflow/requirements.txt
fi

# Built from a copy: setuptools would pack what an earlier build left beside the sources.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r snowcoder_jax beam_pipelines pyproject.toml README.md LICENSE "$copy"
wheels=${WHEELS:-build/dataflow}
rm -f "$wheels"/snowcoder_jax-*.whl
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
  --wheel-dir "$wheels" "$copy"
ls "$wheels"/snowcoder_jax-*.whl

if [ -n "${1:-}" ]; then
  mkdir "$copy/image"
  cp launch/dataflow/Dockerfile requirements.txt requirements-encoder.txt "$copy/image"
  cp launch/dataflow/requirements.txt "$copy/image/requirements-dataflow.txt"
  gcloud builds submit --tag "$1" "$copy/image"
fi
