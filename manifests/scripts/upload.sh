#!/usr/bin/env bash
# Uploads the compiled pipelines of this checkout and says how to go on.
#
#   upload.sh http://localhost:8080
set -euo pipefail

host=${1:?usage: upload.sh http://HOST:PORT}
cd "$(dirname "$0")/../.."
PATH=$PWD/.venv/bin:$PATH

curl --silent --show-error --fail --retry 30 --retry-delay 2 --retry-all-errors --output /dev/null \
  "$host/apis/v2beta1/healthz"
for file in pipelines/*.yaml; do
  name=$(basename "$file" .yaml)
  name=${name//_/-}
  # A pipeline that exists gets a new version.
  kfp --endpoint "$host" pipeline create --pipeline-name "$name" "$file" >/dev/null 2>&1 ||
    kfp --endpoint "$host" pipeline create-version --pipeline-name "$name" \
      --pipeline-version "$(date -u +%Y-%m-%dT%H-%M-%SZ)" "$file" >/dev/null
  echo "uploaded $name"
done
echo
echo "Kubeflow:  $host"
echo "Submit:    .venv/bin/basekamp submit examples/digits.yaml --host $host --wait"
