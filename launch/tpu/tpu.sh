#!/usr/bin/env bash
# A Cloud TPU from its creation to its deletion, with gcloud.
#
#   export PROJECT=my-project ZONE=us-east5-a NAME=snow TYPE=v5p-16
#   bash launch/tpu/tpu.sh create                        # SPOT=1, QUEUED=1 and SLICES=N if wanted
#   bash launch/tpu/tpu.sh install                       # this commit, on all workers
#   bash launch/tpu/tpu.sh train RECIPE [FIELD=VALUE ...]
#   bash launch/tpu/tpu.sh logs [WORKER]                 # follows one worker (0), or `all`
#   bash launch/tpu/tpu.sh stop                          # SIGTERM: saves first
#   bash launch/tpu/tpu.sh delete
#
# --dry-run before the command prints what would be called. `train` returns once the workers have
# begun; each starts `snowcoder train` again for as long as it ends with neither 0 nor 2.
# VERSION names the runtime image; the default is by TYPE. The recipe's `output` is a gs:// path.
set -euo pipefail
cd "$(dirname "$0")/../.."

usage() {
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' launch/tpu/tpu.sh >&2
  exit 2
}

dry_run=
if [ "${1:-}" = --dry-run ]; then
  dry_run=1
  shift
fi
command=${1:-}
[ -n "$command" ] || usage
shift
: "${PROJECT:?the Google Cloud project}" "${ZONE:?such as us-east5-a}" "${NAME:?of the TPU to make}"
slices=${SLICES:-1}
remote=snowcoder-jax

run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

tpus() {
  local what=$1 verb=$2
  shift 2
  run gcloud compute tpus "$what" "$verb" "$@" "--project=$PROJECT" "--zone=$ZONE"
}

# The nodes of a request for several slices are numbered.
nodes() {
  local i
  if [ "$slices" -eq 1 ]; then
    echo "$NAME"
  else
    for ((i = 0; i < slices; i++)); do echo "$NAME-$i"; done
  fi
}

on_all_workers() {
  local node
  for node in $(nodes); do
    tpus tpu-vm ssh "$node" --worker=all "--command=$1"
  done
}

to_all_workers() {
  local node
  for node in $(nodes); do
    tpus tpu-vm scp "$1" "$node:$2" --worker=all
  done
}

create() {
  : "${TYPE:?the accelerator type, such as v5p-16 or v5litepod-16}"
  local version=${VERSION:-} more=()
  if [ -z "$version" ]; then
    case $TYPE in
      v5p-*) version=v2-alpha-tpuv5 ;;
      v5litepod-*) version=v2-alpha-tpuv5-lite ;;
      v6e-*) version=v2-alpha-tpuv6e ;;
      *) version=tpu-ubuntu2204-base ;;
    esac
  fi
  if [ -n "${SPOT:-}" ]; then more+=(--spot); fi
  if [ "$slices" -gt 1 ]; then
    more+=("--node-count=$slices" "--node-prefix=$NAME")
  elif [ -n "${QUEUED:-}" ]; then
    more+=("--node-id=$NAME")
  fi
  if is_queued; then
    tpus queued-resources create "$NAME" "--accelerator-type=$TYPE" \
      "--runtime-version=$version" ${more[@]+"${more[@]}"}
    echo "Queued. Once it is ACTIVE, go on with install:" \
      "gcloud compute tpus queued-resources describe $NAME --project=$PROJECT --zone=$ZONE" >&2
  else
    tpus tpu-vm create "$NAME" "--accelerator-type=$TYPE" "--version=$version" \
      ${more[@]+"${more[@]}"}
  fi
}

is_queued() { [ -n "${QUEUED:-}" ] || [ "$slices" -gt 1 ]; }

install() {
  local archive
  if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
    echo "Note: what is not committed is not installed." >&2
  fi
  archive=$(mktemp -d)/snowcoder-jax.tar.gz
  git archive --format=tar.gz --output="$archive" HEAD
  to_all_workers "$archive" snowcoder-jax.tar.gz
  on_all_workers "rm -rf $remote && mkdir $remote && tar -xzf snowcoder-jax.tar.gz -C $remote && bash $remote/launch/tpu/worker.sh install"
  rm -r "$(dirname "$archive")"
}

train() {
  local recipe=${1:-} quoted=
  if [ ! -f "$recipe" ]; then
    echo "tpu.sh train: name a recipe file, such as configs/arctic_snowcoder_1b3.yaml." >&2
    exit 2
  fi
  shift
  if [ $# -gt 0 ]; then printf -v quoted ' %q' "$@"; fi
  to_all_workers "$recipe" "$remote/recipe.yaml"
  on_all_workers "bash $remote/launch/tpu/worker.sh start recipe.yaml$quoted"
}

logs() {
  local first
  first=$(nodes | head -n 1)
  tpus tpu-vm ssh "$first" "--worker=${1:-0}" "--command=tail -n 100 -F $remote/snowcoder.log"
}

delete() {
  if is_queued; then
    tpus queued-resources delete "$NAME" --force --quiet
  else
    tpus tpu-vm delete "$NAME" --quiet
  fi
}

case $command in
  create | install | delete) "$command" ;;
  train | logs) "$command" "$@" ;;
  stop) on_all_workers "bash $remote/launch/tpu/worker.sh stop" ;;
  *) usage ;;
esac
