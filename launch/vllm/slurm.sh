#!/usr/bin/env bash
# N workers of a synthesis as a SLURM job array: worker K of N is task K.
# Usage: sbatch --array=0-7 launch/vllm/slurm.sh ASK_FOLDER
# Of a model that needs several GPUs (teacher.tensor_parallel) give as many to each task:
#   sbatch --array=0-3 --gpus-per-node=4 launch/vllm/slurm.sh ASK_FOLDER
# N is the number of tasks, unless NUM_WORKERS says otherwise. Some of the tasks alone, again: name
# the N of before, or a task of one is worker 0 of 1 and asks for everything:
#   NUM_WORKERS=8 sbatch --array=3,5 launch/vllm/slurm.sh ASK_FOLDER
# The repository with its .venv-vllm (made beforehand: launch/vllm/README.md) and ASK_FOLDER lie on
# storage that all nodes share. Tasks may run at once or one after the other, and may be cancelled
# and submitted again with another N: what is stored is not asked again.
#SBATCH --job-name=snowcoder-synthesis
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=snowcoder-synthesis-%A-%a.log
# Before the time is up the worker gets SIGTERM and ends with 75; the task is then queued again.
#SBATCH --signal=B:TERM@120
set -euo pipefail

ask=${1:?the folder of ask.json}
: "${SLURM_ARRAY_TASK_ID:?submit it with --array=0-LAST}"
root=${SNOWCODER_ROOT:-$PWD}
export SNOWCODER_VLLM_PYTHON=${SNOWCODER_VLLM_PYTHON:-$root/.venv-vllm/bin/python}

# Bash runs the trap once `wait` returns: worker.sh is its child and passes the signal on.
code=0
child=0
stopped=0
trap 'stopped=1; [ "$child" -eq 0 ] || kill -TERM "$child" 2>/dev/null || true' TERM
bash "$root/launch/vllm/worker.sh" "$ask" --worker "$SLURM_ARRAY_TASK_ID" \
  --num-workers "${NUM_WORKERS:-$SLURM_ARRAY_TASK_COUNT}" &
child=$!
# A stop that came just before had nobody to go to.
[ "$stopped" -eq 0 ] || kill -TERM "$child" 2>/dev/null || true
wait "$child" || code=$?
while kill -0 "$child" 2>/dev/null; do
  code=0
  wait "$child" || code=$?
done
# worker.sh was stopped before it had a trap of its own.
[ "$stopped" -eq 0 ] || [ "$code" -ne 143 ] || code=75
echo "slurm.sh: worker $SLURM_ARRAY_TASK_ID ended with $code"
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "${MAX_RESTARTS:-100}" ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$code"
