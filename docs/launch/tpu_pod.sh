#!/bin/bash
# Every host of a TPU pod slice, from your own machine. The hosts share a file system (Filestore over NFS, mounted at /data):
# claims need exclusive creation of files, which a bucket mounted as a folder does not always give.
#   TPU=my-slice ZONE=us-central2-b bash docs/launch/tpu_pod.sh
set -euo pipefail
: "${TPU:?name of the slice} ${ZONE:?its zone}"

on_all() { gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command "$1"; }

on_all "pip install --quiet 'quam_jax[tpu]'"

# a slice starts only as a whole, which `--coordinator auto` (jax.distributed) sees to; the cases are shared by the folder
on_all "JAX_COMPILATION_CACHE_DIR=/data/compiled quam-jax run --model /data/model --images /data/images \
  --fit-images /data/fit/images --fit-masks /data/fit/masks --out /data/runs/first --coordinator auto"

# after a pre-emption: create the slice again and run this file again; it goes on where it stopped
