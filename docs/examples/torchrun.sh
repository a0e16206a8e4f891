#!/bin/bash
# All GPUs of one machine:  docs/examples/torchrun.sh ctn_small --data.manifest mine.csv --run.out runs/mine
#
# With several machines, run the same line on each of them, with MACHINES and FIRST set and the folder where all see it:
#   MACHINES=2 FIRST=first-machine:29500 docs/examples/torchrun.sh ctn_small --data.manifest mine.csv --run.out runs/mine
#
# PROCESSES is one for each GPU; without a GPU, 1 or the number of cores to use.
set -euo pipefail
PROCESSES=${PROCESSES:-gpu}
MACHINES=${MACHINES:-1}

if [ "$MACHINES" = 1 ]; then
  meeting=(--standalone)
else
  meeting=(--nnodes "$MACHINES" --rdzv-backend c10d --rdzv-endpoint "$FIRST" --rdzv-id kinema)
fi

# torchrun's shared store keeps addresses of processes that are gone; on several machines a restart may find them.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

# A process that is lost ends the others; torchrun starts all of them again, and they go on from the last checkpoint.
exec torchrun "${meeting[@]}" --nproc-per-node "$PROCESSES" --max-restarts 3 \
  -m kinema.cli train "$@" --existing resume --checkpoint.every 500
