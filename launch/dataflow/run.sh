#!/usr/bin/env bash
# One corpus stage, or a part of the snowcoder command with its corpus stages, on Dataflow.
# Usage: PROJECT=P REGION=R BUCKET=B IMAGE=I bash launch/dataflow/run.sh STAGE RECIPE [ARGUMENT ...]
# STAGE is a file of beam_pipelines/ (rules) or a part of the snowcoder command (prepare); the
# recipe's `output` and sources are gs:// paths. First: launch/dataflow/prepare.sh IMAGE.
set -euo pipefail
cd "$(dirname "$0")/../.."

: "${PROJECT:?the Google Cloud project}" "${REGION:?such as us-central1}"
: "${BUCKET:?the bucket for staged and temporary files}" "${IMAGE:?what prepare.sh was given}"
stage=${1:?the stage, such as rules, or prepare}
shift
wheels=("${WHEELS:-build/dataflow}"/snowcoder_jax-*.whl)
if [ ! -f "${wheels[0]}" ]; then
  echo "There is no wheel: first run launch/dataflow/prepare.sh." >&2
  exit 2
fi
if [ -z "${PYTHON:-}" ]; then
  source launch/setup.sh
  set_up_environment .venv-dataflow requirements.txt requirements-encoder.txt launch/dataflow/requirements.txt
fi

options=(
  --runner=DataflowRunner
  "--project=$PROJECT"
  "--region=$REGION"
  "--temp_location=gs://$BUCKET/tmp"
  "--sdk_container_image=$IMAGE"
  --sdk_location=container
  "--extra_package=${wheels[0]}"
  # An element is a whole shard: one at a time in each process, and a process for each core.
  --number_of_worker_harness_threads=1
)
if [ -f "beam_pipelines/$stage.py" ]; then
  exec "$PYTHON" -m "beam_pipelines.$stage" "$@" "${options[@]}"
fi
printf -v list '%s, ' "${options[@]}"
exec "$PYTHON" -m snowcoder_jax.cli "$stage" "$@" "hardware.beam_options=[${list%, }]"
