"""Training on more than one node: a Kubeflow Trainer TrainJob, made, followed and cleared away by this pod.

The data set goes to the nodes through the store, and the model comes back the same way. SIGTERM to this pod ends the
TrainJob; when the pod itself goes, Kubernetes deletes the TrainJob, which it owns.
"""

import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from basekamp.cluster.kube import AbsentError, Cluster, RefusedError, connect_cluster
from basekamp.cluster.trainjob_follow import Follower
from basekamp.cluster.trainjob_node import prefix_of, put_job
from basekamp.cluster.trainjob_object import GROUP, PLURAL, VERSION, Nodes, train_job
from basekamp.errors import BasekampError, InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.storage import Store, open_store
from basekamp.storage.tree import delete_tree, fetch_tree
from basekamp.training.launch import Job
from basekamp.training.results import Training
from basekamp.training.termination import EXIT_STATUS, on_sigterm

Object = dict[str, Any]

NAME_VARIABLES = ("POD_NAME", "KFP_POD_NAME", "HOSTNAME")
"""Where this pod's name is found: the downward API's usual one, Kubeflow Pipelines' and every pod's."""

_NODE_MODULE = "basekamp.cluster.trainjob_node"


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for running nodes, for the end, between two looks."""

    start_seconds: float = 3600.0
    timeout_seconds: float = 7 * 24 * 3600.0
    poll_seconds: float = 3.0


def train_on_nodes(
    dataset: Path,
    directory: Path,
    hyperparameters: Hyperparameters,
    *,
    metric: str,
    seeds: int = 3,
    first_seed: int = 0,
    gpus: str = "0",
    nodes: str = "1",
    node_gpus: str = "0",
    gpu_type: str = "nvidia.com/gpu",
    store: str = "",
    profile: bool = False,
    tracking: str = "",
) -> Training:
    """Train in this pod on its `gpus` when `nodes` is "1", else on that many nodes with `node_gpus` each.

    The counts are texts, as Kubeflow's resource parameters are. Raises what `train_model` and `run_train_job` raise.
    """
    if _count("nodes", nodes, least=1) == 1:
        from basekamp.training.train import train_model

        how: dict[str, Any] = {"metric": metric, "seeds": seeds, "first_seed": first_seed, "profile": profile}
        return train_model(dataset, directory, hyperparameters, gpus=gpus, store=store, tracking=tracking, **how)
    job = Job(
        dataset=dataset,
        directory=directory,
        hyperparameters=hyperparameters,
        metric=metric,
        seeds=seeds,
        gpus=node_gpus,
        store=store,
        first_seed=first_seed,
        profile=profile,
        tracking=tracking,
    )
    return run_train_job(job, nodes=nodes, gpu_type=gpu_type, store=store)


def run_train_job(
    job: Job,
    *,
    nodes: str,
    gpu_type: str = "nvidia.com/gpu",
    store: str,
    runtime: str = "torch-distributed",
    patience: Patience | None = None,
    cluster: Cluster | None = None,
) -> Training:
    """Train on `nodes` nodes of `job.gpus` GPUs each; model and training come to `job.directory`.

    The nodes run this pod's image, with its CPU, memory, volumes, tolerations and store secrets. `runtime` names a
    ClusterTrainingRuntime for torch. `store` is an s3:// or minio:// URL; what is put there is removed at the end.

    Raises:
        InputError: counts or a store that cannot be used, or a process that runs in no pod of the cluster.
        StoreError: the store fails, or its credentials cannot be handed on.
        BasekampError: no Kubeflow Trainer, no right or quota, or a training that failed or did not start or end.
    """
    wanted = Nodes(_count("nodes", nodes, least=1), _count("node_gpus", job.gpus, least=0), gpu_type)
    if not store.startswith(("s3://", "minio://")):
        raise InputError(
            f"store {store!r} cannot be seen by other nodes: use s3://bucket/prefix or minio://bucket/prefix."
        )
    shelf, cluster, patience = open_store(store), cluster or connect_cluster(), patience or Patience()
    name = f"basekamp-{secrets.token_hex(5)}"
    body = train_job(
        name,
        pod=_own_pod(cluster),
        nodes=wanted,
        command=["python3", "-m", _NODE_MODULE, store, name],
        runtime=runtime,
        timeout_seconds=patience.timeout_seconds,
    )
    follower = Follower(cluster, cluster.namespace, name, nodes=wanted.count, **vars(patience))
    with on_sigterm(_leave_once()):
        try:
            put_job(shelf, name, job)
            _create(cluster, body)
            follower.follow()
            fetch_tree(shelf, f"{prefix_of(name)}/model", job.directory)
            return Training.read(job.directory)
        finally:
            _clear_away(cluster, shelf, name)


def _count(name: str, text: str, *, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise InputError(f'{name}="{text}" is not a count: use "{least}" or more.')
    return int(text)


def _leave_once() -> Callable[[], None]:
    """What SIGTERM does: end this process by way of the clearing away, which a second one does not disturb."""
    asked: list[bool] = []

    def leave() -> None:
        if not asked:
            asked.append(True)
            raise SystemExit(EXIT_STATUS)

    return leave


def _own_pod(cluster: Cluster) -> Object:
    name = next((os.environ[each] for each in NAME_VARIABLES if os.environ.get(each)), "")
    place = f"namespace {cluster.namespace}"
    try:
        return cluster.get(f"/api/v1/namespaces/{cluster.namespace}/pods/{name or 'unknown'}")
    except AbsentError:
        raise InputError(
            f"this process runs in no pod of {place} (there is none named {name or 'by POD_NAME'}), and only a pod "
            'can start other nodes: submit the run to a cluster, or use nodes="1".'
        ) from None
    except RefusedError as error:
        _refuse(error, f"read its own pod in {place}")


def _create(cluster: Cluster, body: Object) -> None:
    place = f"namespace {cluster.namespace}"
    try:
        created = cluster.create(f"/apis/{GROUP}/{VERSION}/namespaces/{cluster.namespace}/{PLURAL}", body)
    except AbsentError:
        raise BasekampError(
            'this cluster has no TrainJobs: install Kubeflow Trainer 2.2 or newer, or use nodes="1".'
        ) from None
    except RefusedError as error:
        if "exceeded quota" in str(error):
            raise BasekampError(
                f"the quota of {place} leaves no room for a TrainJob ({error}): have it raised."
            ) from None
        _refuse(error, f"create TrainJobs in {place}")
    if not created["spec"].get("runtimePatches"):
        raise BasekampError(
            "this cluster's Kubeflow Trainer is too old, it drops runtimePatches: install 2.2 or newer."
        )
    print(f"{body['metadata']['name']}: a TrainJob of {body['spec']['trainer']['numNodes']} nodes is made.", flush=True)


def _refuse(error: RefusedError, what: str) -> NoReturn:
    if error.status == 403 and "forbidden: User" in str(error):
        raise BasekampError(
            f"this pod's service account may not {what}: bind the Role basekamp-pipeline to it ({error})"
        ) from None
    raise error


def _clear_away(cluster: Cluster, store: Store, name: str) -> None:
    """Delete the TrainJob, and the nodes with it, then its files; what cannot be deleted is told."""
    from kubernetes import client  # type: ignore[import-untyped]

    for attempt in range(3):
        try:
            client.CustomObjectsApi(cluster.api).delete_namespaced_custom_object(
                GROUP, VERSION, cluster.namespace, PLURAL, name, propagation_policy="Foreground"
            )
            break
        except AbsentError:
            break
        except BasekampError as error:
            if attempt == 2:
                print(f"The TrainJob {name} could not be deleted ({error}): it goes when this pod goes.", flush=True)
            time.sleep(1.0)
    try:
        delete_tree(store, prefix_of(name))
    except BasekampError as error:
        print(f"{store.url}/{prefix_of(name)} could not be removed ({error})", flush=True)
