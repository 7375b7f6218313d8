#!/usr/bin/env bash
# Installs Kubeflow Pipelines on MinIO. Running it again brings an installation up to date.
#
#   install.sh kind          into the kind cluster of kind-cluster.yaml, whatever kubectl points at
#   install.sh gpu-cluster   into the cluster that kubectl points at
set -euo pipefail

manifests=$(cd "$(dirname "$0")/.." && pwd)
overlay=$manifests/overlays/${1:-}
options=()
case "${1:-}" in
  kind) options=(--context kind-basekamp) ;;
  gpu-cluster) ;;
  *)
    echo "overlay '${1:-}' is not known: use kind or gpu-cluster." >&2
    exit 2
    ;;
esac
kube() { kubectl "${options[@]}" --namespace kubeflow "$@"; }

kube apply --kustomize "$manifests/base/namespace"
kube apply --server-side --force-conflicts --kustomize "$manifests/kubeflow/cluster-scoped"
kube wait --for=condition=Established --timeout=2m crd/applications.app.k8s.io crd/workflows.argoproj.io
"$manifests/scripts/credentials.sh" "${options[@]}"
# A Job cannot be changed, only made anew.
kube delete job minio-setup --ignore-not-found
kube apply --kustomize "$overlay"
if [ -n "$(kube get job minio-setup --ignore-not-found --output name)" ]; then
  kube wait --for=condition=Complete --timeout=15m job/minio-setup
fi
kube wait --for=condition=Available --timeout=15m deployment --all
