# Sourced by the other scripts: `set_up_environment FOLDER LOCK [LOCK ...]` makes a virtual
# environment with exactly what the locks name and this project in it, or does nothing in a second
# where that was done before. It sets PYTHON to the environment's interpreter.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu

find_python() {
  local candidate
  for candidate in "${SNOWCODER_PYTHON:-}" python3.11 python3 python3.12 python3.13; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python 3.11, 3.12 or 3.13 found. Install one (Debian: apt-get install python3 python3-venv)," \
    "or name it: SNOWCODER_PYTHON=/path/to/python3.11" >&2
  exit 1
}

set_up_environment() {
  local folder=$1 base stamp
  shift
  base=$(find_python) || exit 1
  stamp=$(cat "$@" pyproject.toml launch/setup.sh | "$base" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read() + sys.version.encode()).hexdigest())')
  PYTHON=$folder/bin/python
  has_stamp "$folder" "$stamp" && return
  # Of several scripts at once the first makes it, and the others wait.
  (
    flock 9 2>/dev/null || true
    has_stamp "$folder" "$stamp" || make_environment "$folder" "$stamp" "$base" "$@"
  ) 9<launch/setup.sh || exit 1
}

has_stamp() {
  [ -x "$1/bin/python" ] && [ "$(cat "$1/stamp" 2>/dev/null)" = "$2" ]
}

make_environment() {
  local folder=$1 stamp=$2 base=$3
  shift 3
  echo "Setting up $folder (once; a minute or two) ..." >&2
  rm -rf "$folder"
  if ! "$base" -m venv "$folder"; then
    echo "Python's venv module is missing. Debian: apt-get install python3-venv" >&2
    exit 1
  fi
  local lock
  for lock in "$@"; do
    # The locks are complete, so pip has nothing to resolve.
    if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$lock"; then
      echo "Could not install $lock: see pip's message above. The network is needed this once." >&2
      exit 1
    fi
  done
  # An environment whose lock brings CUDA keeps the torch that uses it.
  grep -q '^nvidia-' "$@" || use_torch_without_cuda "$folder/bin/python"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable . || {
    echo "Could not install this project into $folder: see pip's message above." >&2
    exit 1
  }
  echo "$stamp" >"$folder/stamp"
}

# PyPI's torch for Linux loads CUDA's libraries, gigabytes that the locks of CPU environments do not
# name. PyTorch's own index has the same version without them.
use_torch_without_cuda() {
  local python=$1 version
  version=$("$python" -c '
try:
    import torch
except ModuleNotFoundError:
    pass
except (ImportError, OSError):
    import importlib.metadata
    print(importlib.metadata.version("torch").split("+")[0])') || exit 1
  [ -n "$version" ] || return 0
  echo "torch $version needs CUDA here; taking its CPU build from $TORCH_CPU_INDEX instead ..." >&2
  if ! "$python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall \
    --index-url "$TORCH_CPU_INDEX" "torch==$version"; then
    echo "Could not get it: see pip's message above. From another index that has torch" \
      "$version+cpu: set PIP_EXTRA_INDEX_URL and start again." >&2
    exit 1
  fi
}
