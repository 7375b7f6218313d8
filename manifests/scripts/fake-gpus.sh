#!/usr/bin/env bash
# Pretends that the kind cluster's GPU node has GPUs, so that scheduling them can be rehearsed. A step that gets
# one still finds no device. The kubelet forgets them when the node restarts: run it again then.
#
#   fake-gpus.sh [COUNT]     COUNT is 4 unless given; 0 takes them away
set -euo pipefail

count=${1:-4}
if ! [[ $count =~ ^[0-9]+$ ]]; then
  echo "count '$count' is not allowed: use a whole number, 0 or more." >&2
  exit 2
fi
kube=(kubectl --context kind-basekamp)
patch='[{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": "'$count'"}]'
for node in $("${kube[@]}" get nodes --selector nvidia.com/gpu.product=pretended --output name); do
  "${kube[@]}" patch "$node" --subresource=status --type=json --patch "$patch"
done
