"""What a node of a TrainJob runs: data from the store, torchrun, and from the first node the model to the store.

<store>/.trainjobs/<name>/input/job.json    the job; its paths are set anew on each node
<store>/.trainjobs/<name>/input/dataset/…   the data set without its test split
<store>/.trainjobs/<name>/model/…           model.pth, training.json and, where asked for, trace.json.gz

Kubeflow Trainer says in PET_NODE_RANK, PET_NNODES, PET_MASTER_ADDR and PET_MASTER_PORT who the nodes are.
"""

import os
import sys
import tempfile
from contextlib import suppress
from functools import partial
from pathlib import Path

from basekamp.document import load_document
from basekamp.errors import BasekampError, DeviceError, InputError, StoreError
from basekamp.storage import Store, open_store
from basekamp.storage.tree import fetch_tree, put_tree
from basekamp.training.launch import JOB_FILE, Job, launch
from basekamp.training.termination import EXIT_STATUS, on_sigterm

TERMINATION_LOG = Path("/dev/termination-log")
USER_ERROR = 2
"""The exit status of a node that a sentence of ours ended: starting it again would change nothing."""


def prefix_of(name: str) -> str:
    """Where in the store a TrainJob's files lie."""
    return f".trainjobs/{name}"


def put_job(store: Store, name: str, job: Job) -> None:
    """Lay out what the nodes need. The test split stays behind: training never sees it."""
    prefix = f"{prefix_of(name)}/input"
    store.put(f"{prefix}/{JOB_FILE}", job.model_dump_json().encode())
    put_tree(store, f"{prefix}/dataset", job.dataset, leave_out=("test",))


def train_on_this_node(store: Store, name: str, work: Path) -> None:
    """Train with the other nodes, and from the first one send the model.

    Raises the error that a process of this node met.
    """
    if not fetch_tree(store, f"{prefix_of(name)}/input", work):
        raise StoreError(f"store {store.url} holds nothing for {name}: was its training ended?")
    told = load_document(Job, work / JOB_FILE)
    job = told.model_copy(update={"dataset": work / "dataset", "directory": work / "model"})
    launch(job, max(int(job.gpus), 1), on_this_node_alone=False)
    if os.environ.get("PET_NODE_RANK", "0") == "0":
        put_tree(store, f"{prefix_of(name)}/model", job.directory)


def main(url: str, name: str) -> None:
    """Be one node; a sentence of ours goes where Kubernetes shows it, in the pod's status."""
    # Without this, the first process of a container never hears SIGTERM.
    with tempfile.TemporaryDirectory(prefix="basekamp-") as work, on_sigterm(partial(sys.exit, EXIT_STATUS)):
        try:
            train_on_this_node(open_store(url), name, Path(work))
        except BasekampError as error:
            print(error, file=sys.stderr, flush=True)
            with suppress(OSError):
                if TERMINATION_LOG.exists():
                    TERMINATION_LOG.write_text(str(error)[:4000])
            sys.exit(USER_ERROR if isinstance(error, InputError | DeviceError) else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
