#!/bin/bash
# All GPUs of one machine:  docs/examples/torchrun.sh ctn_small --data.manifest mine.csv --run.out runs/mine
#
# On several machines, run the same line on each, with MACHINES and FIRST set and a run folder that all machines see:
#   MACHINES=2 FIRST=first-machine:29500 docs/examples/torchrun.sh ctn_small --data.manifest mine.csv --run.out runs/mine
#
# PROCESSES is one per GPU by default; without a GPU, set it to 1 or the number of cores to use.
set -euo pipefail
PROCESSES=${PROCESSES:-gpu}
MACHINES=${MACHINES:-1}

if [ "$MACHINES" = 1 ]; then
  meeting=(--standalone)
else
  meeting=(--nnodes "$MACHINES" --rdzv-backend c10d --rdzv-endpoint "$FIRST" --rdzv-id kinema)
fi

# torchrun's shared store keeps addresses of dead processes, which a restart on several machines may use.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# If a process fails, torchrun stops and restarts all of them, and they resume from the last checkpoint.
exec torchrun "${meeting[@]}" --nproc-per-node "$PROCESSES" --max-restarts 3 \
  -m kinema.cli train "$@" --existing resume --checkpoint.every 500
