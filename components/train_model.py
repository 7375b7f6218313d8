"""Kubeflow component: data set to model."""

from kfp import dsl

from components import component


@component
def train_model(
    dataset: dsl.Input[dsl.Dataset],
    model_file: dsl.Output[dsl.Model],
    metric: str,
    seeds: int = 3,
    model: str = "linear",
    n_layers: int = 2,
    width: int = 128,
    act: str = "relu",
    dropout: float = 0.0,
    n_epochs: int = 20,
    batch_size: int = 128,
    lr: float = 0.001,
    weight_decay: float = 0.0001,
    schedule: str = "cosine",
    patience: int = 5,
    options: str = "{}",
    gpus: str = "0",
    nodes: str = "1",
    node_gpus: str = "0",
    gpu_type: str = "nvidia.com/gpu",
    store: str = "",
    code_version: str = "",
):
    """Train one set of hyperparameters with several seeds; a killed training goes on from its checkpoint.

    Args:
        dataset: The data set folder from prepare-data.
        model_file: Folder with model.pth (every replicate, loadable with weights_only=True) and training.json.
        metric: Deciding metric; its best validation epoch is kept.
        seeds: How many replicates to train.
        model: majority, mean, linear, mlp, cnn, or package.module:callable.
        n_layers: Hidden layers of mlp, convolutions of cnn.
        width: Units of a hidden layer, channels of a convolution.
        act: relu, leaky_relu, gelu, silu or tanh.
        dropout: Share of units dropped while training, from 0 to below 1.
        n_epochs: Most passes over the training split.
        batch_size: Rows of one step.
        lr: Highest learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        schedule: cosine or constant.
        patience: Epochs without a better validation value before stopping; 0 for never.
        options: Keywords for a model of your own, as a JSON object.
        gpus: How many GPUs of this pod; "0" trains on the CPU, "2" or more share each batch.
        nodes: How many nodes; "2" or more train in a Kubeflow Trainer TrainJob instead of in this pod.
        node_gpus: How many GPUs each node of a TrainJob has.
        gpu_type: Resource name of the GPUs of a TrainJob.
        store: Where data set and model pass between this pod and the nodes of a TrainJob.
        code_version: Version of the code; part of the cache key.
    """
    import json
    from pathlib import Path

    from basekamp.cluster.trainjob import train_on_nodes
    from basekamp.hyperparameters import Hyperparameters

    settings = Hyperparameters.from_mapping(
        {
            "model": model,
            "n_layers": n_layers,
            "width": width,
            "act": act,
            "dropout": dropout,
            "n_epochs": n_epochs,
            "batch_size": batch_size,
            "lr": lr,
            "weight_decay": weight_decay,
            "schedule": schedule,
            "patience": patience,
            "options": json.loads(options),
        }
    )
    folders = (Path(dataset.path), Path(model_file.path))
    place = {"gpus": gpus, "nodes": nodes, "node_gpus": node_gpus, "gpu_type": gpu_type, "store": store}
    training = train_on_nodes(*folders, settings, metric=metric, seeds=seeds, **place)
    model_file.metadata.update(device=training.device)
