#!/bin/sh
# Makes MinIO ready for Kubeflow Pipelines and basekamp. Running it again changes nothing.
# The image holds mc and a shell, no grep or sed.
set -eu

mc alias set store "$ENDPOINT" "$ROOT_USER" "$ROOT_PASSWORD" >/dev/null
mc mb --ignore-existing "store/$BUCKET"
mc version enable "store/$BUCKET"
# Replaces all rules at once, so a second run adds no second copy.
mc ilm rule import "store/$BUCKET" <"${0%/*}/lifecycle.json"
mc admin policy create store pipelines "${0%/*}/policy.json"
mc admin user add store "$ACCESS_KEY" "$SECRET_KEY" >/dev/null
mc admin policy attach store pipelines --user "$ACCESS_KEY"
