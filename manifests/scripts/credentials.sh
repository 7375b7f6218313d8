#!/usr/bin/env bash
# Creates the Secrets that no overlay holds, with random passwords. A Secret that exists stays as it is.
#
#   credentials.sh [KUBECTL OPTION...]                          for MinIO in the cluster
#   ACCESS_KEY=… SECRET_KEY=… credentials.sh [KUBECTL OPTION...] for a bucket elsewhere
set -euo pipefail

kube=(kubectl --namespace kubeflow "$@")

random() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }

# Values go through standard input: arguments can be read by every user of the machine.
create() {
  local name=$1 values
  # Read in any case: a pipe that nobody reads would end the script.
  values=$(cat)
  if [ -n "$("${kube[@]}" get secret "$name" --ignore-not-found --output name)" ]; then
    echo "secret/$name stays"
  else
    printf '%s\n' "$values" | "${kube[@]}" create secret generic "$name" --from-env-file=/dev/stdin
  fi
}

if [ -n "${ACCESS_KEY:-}" ] && [ -z "${SECRET_KEY:-}" ]; then
  echo "ACCESS_KEY is set and SECRET_KEY is not: set both, or neither for random ones." >&2
  exit 2
fi

printf 'username=root\npassword=%s\n' "$(random)" | create mysql-secret
printf 'user=basekamp-root\npassword=%s\n' "$(random)" | create minio-root
printf 'accesskey=%s\nsecretkey=%s\n' "${ACCESS_KEY:-pipelines}" "${SECRET_KEY:-$(random)}" |
  create mlpipeline-minio-artifact
