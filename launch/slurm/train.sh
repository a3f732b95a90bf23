#!/usr/bin/env bash
# A phase after the other on a SLURM cluster: sbatch launch/slurm/train.sh RECIPE [FIELD=VALUE ...]
# One task for each GPU (JAX gives each task one); sbatch's own options go before the script:
#   sbatch --nodes=4 --partition=gpu launch/slurm/train.sh configs/arctic_snowcoder_1b3.yaml
# The repository with its .venv, and the recipe's `output`, lie on storage that all nodes share.
# The job is queued again after every end but a done one (0) and a fault of the input (2), at most
# MAX_RESTARTS times (default 100).
#SBATCH --job-name=snowcoder
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=snowcoder-%j.log
# Before the time is up every task gets SIGTERM, and saves.
#SBATCH --signal=TERM@300
set -euo pipefail

recipe=${1:?the recipe, such as configs/arctic_snowcoder_1b3.yaml}
shift
code=0
# A task that ends must not take the others along before they have saved.
srun --kill-on-bad-exit=0 "${SNOWCODER:-.venv/bin/snowcoder}" train "$recipe" "$@" || code=$?
echo "train.sh: snowcoder train ended with $code"
if [ "$code" -ne 0 ] && [ "$code" -ne 2 ] &&
  [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-100}" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
