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

# The folder is the same each time that the job is queued again, and it lies where all machines see it.
OUT=runs/$SLURM_JOB_NAME-$SLURM_JOB_ID

# srun starts one process for each GPU. Three minutes before the time is over they get SIGUSR1, and at preemption
# SIGTERM: they save and leave with 128 + the signal's number.
set +e
srun kinema train "$@" --run.out "$OUT" --existing resume --checkpoint.every 500
code=$?
set -e

# 138 is SIGUSR1: the time was over. The job queues itself again and goes on.
if [ "$code" = 138 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
