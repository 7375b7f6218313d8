"""What the steps of every pipeline ask of the cluster: cores, memory, GPUs, nodes, the store and the trackers."""

from typing import Any

from kfp import kubernetes

from basekamp.tracking.variables import TRACKING_SECRETS, TRACKING_SETTINGS

MINIO_SECRET = "mlpipeline-minio-artifact"
MINIO_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}

STORE_SETTINGS = "basekamp-store"
STORE_KEYS = {"endpoint": "BASEKAMP_S3_ENDPOINT", "region": "AWS_REGION"}

TRACKING = "basekamp-tracking"
"""A ConfigMap with addresses and a Secret with credentials; their keys are the trackers' own variables."""

RETRIES = 2


def ask_for(*steps: Any, cpu: Any, memory: Any) -> None:
    """Let each step have that many cores at least and that much memory at most."""
    for step in steps:
        step.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)


def on_gpus(*steps: Any, gpu_type: Any, count: Any) -> None:
    """Let each step have that many GPUs."""
    for step in steps:
        step.set_accelerator_type(gpu_type).set_accelerator_limit(count)


def trains_on(*steps: Any, node_selector: Any, tolerations: Any) -> None:
    """Let steps that train run on chosen nodes, share memory between processes, and go on from their checkpoints."""
    for step in steps:
        kubernetes.add_node_selector_json(step, node_selector)
        kubernetes.add_toleration_json(step, tolerations)
        # PyTorch shares memory between processes through /dev/shm, 64 MiB unless mounted; its limit is the memory's.
        kubernetes.empty_dir_mount(step, volume_name="dshm", mount_path="/dev/shm", medium="Memory")
        step.set_retry(num_retries=RETRIES)  # a preempted or evicted training goes on


def reaches_store(*steps: Any) -> None:
    """Give steps the store's credentials from the cluster's own secret, and its endpoint where one is set."""
    for step in steps:
        kubernetes.use_secret_as_env(step, secret_name=MINIO_SECRET, secret_key_to_env=MINIO_KEYS)
        kubernetes.use_config_map_as_env(
            step, config_map_name=STORE_SETTINGS, config_map_key_to_env=STORE_KEYS, optional=True
        )


def reaches_trackers(*steps: Any) -> None:
    """Give steps the addresses and credentials of trackers, where the cluster has any."""
    for step in steps:
        kubernetes.use_config_map_as_env(
            step, config_map_name=TRACKING, config_map_key_to_env=_as_they_are(TRACKING_SETTINGS), optional=True
        )
        kubernetes.use_secret_as_env(
            step, secret_name=TRACKING, secret_key_to_env=_as_they_are(TRACKING_SECRETS), optional=True
        )


def _as_they_are(names: tuple[str, ...]) -> dict[str, str]:
    return {name: name for name in names}
