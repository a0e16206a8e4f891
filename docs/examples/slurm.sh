#!/bin/bash
# Two machines with four GPUs each:  sbatch docs/examples/slurm.sh ctn_small --data.manifest mine.csv --data.batch-size 64
#SBATCH --job-name=kinema
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=kinema-%j.log
set -euo pipefail

# The run folder stays the same when the job is requeued, and all machines see it.
OUT=runs/$SLURM_JOB_NAME-$SLURM_JOB_ID

# srun starts one process per GPU. They get SIGUSR1 three minutes before the time limit, and SIGTERM at preemption, save a
# checkpoint and exit with 128 + the signal number.
set +e
srun kinema train "$@" --run.out "$OUT" --existing resume --checkpoint.every 500
code=$?
set -e

# 138 is SIGUSR1, the time limit: requeue the job, which then resumes.
if [ "$code" = 138 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
