#!/bin/bash
# Every host of a TPU slice (of four chips a host) as a Ray node with one worker, from your own machine. The hosts share a file
# system (Filestore over NFS, mounted at /data).
#   TPU=my-slice ZONE=us-central2-b bash docs/launch/tpu_pod.sh
set -euo pipefail
: "${TPU:?name of the slice} ${ZONE:?its zone}"

on() { gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker="$1" --command "$2"; }

on all "pip install --quiet 'quam_jax[tpu,ray]'"

# each host is a machine of its own to JAX; without this a slice starts only as a whole
alone="TPU_PROCESS_BOUNDS=1,1,1 TPU_CHIPS_PER_PROCESS_BOUNDS=2,2,1 RAY_USAGE_STATS_ENABLED=0"
on 0 "$alone ray start --head --port 6379"
head=$(on 0 "hostname -i" | awk '{print $1}')
on all "ray status >/dev/null 2>&1 || $alone ray start --address $head:6379"

on 0 "JAX_COMPILATION_CACHE_DIR=/data/compiled quam-jax run --model /data/model --images /data/images \
  --fit-images /data/fit/images --fit-masks /data/fit/masks --out /data/runs/first --engine ray --address auto"

# after a pre-emption: create the slice again and run this file again; it goes on where it stopped
