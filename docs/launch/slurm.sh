#!/bin/bash
# One process a GPU, all in one run folder on the cluster's file system. Submit it again after a time limit: it goes on.
#SBATCH --job-name=quam-jax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-gpu=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
#SBATCH --output=%x-%j-%t.log

set -euo pipefail
: "${MODEL:?} ${IMAGES:?} ${FIT_IMAGES:?} ${FIT_MASKS:?} ${OUT:?}"  # paths that every node sees

# compiled functions are shared by all processes; without this each compiles for itself
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$OUT.compiled}"

# srun ends all tasks when one dies only if told to; a dead task's case is taken over by the others
srun --gpus-per-task=1 --no-kill --kill-on-bad-exit=0 bash -c 'exec quam-jax run \
  --model "$MODEL" --images "$IMAGES" --fit-images "$FIT_IMAGES" --fit-masks "$FIT_MASKS" --out "$OUT" \
  --hosts "$SLURM_NTASKS" --host-index "$SLURM_PROCID"'
