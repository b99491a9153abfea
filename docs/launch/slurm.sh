#!/bin/bash
# Workers by Ray on whole nodes, one an accelerator. Submit it again after a time limit: it goes on where it stopped.
#
# Without Ray, an array of parts: put `#SBATCH --array=1-32` and `#SBATCH --gpus=1` in the place of nodes and tasks, and
#   quam-jax run ... --out "$OUT" --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
# in that of the last command; when all parts have ended: quam-jax report "$OUT".
#SBATCH --job-name=quam-jax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log

set -euo pipefail
: "${MODEL:?} ${IMAGES:?} ${FIT_IMAGES:?} ${FIT_MASKS:?} ${OUT:?}"  # paths that every node sees

# compiled functions are shared by all workers; without this each machine compiles for itself
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$OUT.compiled}"
export RAY_USAGE_STATS_ENABLED=0

# the same command on every node: Ray starts on all of them, and the first one deals the cases out
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" ray symmetric-run \
  --address "$first:6379" --min-nodes "$SLURM_JOB_NUM_NODES" -- \
  quam-jax run --model "$MODEL" --images "$IMAGES" --fit-images "$FIT_IMAGES" --fit-masks "$FIT_MASKS" --out "$OUT" \
  --engine ray --address auto
