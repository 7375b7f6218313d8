"""The pipeline's steps as Kubeflow components: each a thin wrapper around one call of the library."""

import functools

from kfp import dsl

IMAGE = "ghcr.io/basekamp/basekamp:0.1.0"

component = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
