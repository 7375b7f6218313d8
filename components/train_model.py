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
    warmup: float = 0.0,
    patience: int = 5,
    label_smoothing: float = 0.0,
    clip_norm: float = 0.0,
    ema: float = 0.0,
    flip: bool = False,
    crop: int = 0,
    cutout: int = 0,
    precision: str = "auto",
    n_trees: int = 300,
    n_leaves: int = 31,
    shrinkage: float = 0.1,
    options: str = "{}",
    overrides: str = "{}",
    first_seed: int = 0,
    gpus: str = "0",
    nodes: str = "1",
    node_gpus: str = "0",
    gpu_type: str = "nvidia.com/gpu",
    store: str = "",
    profile: bool = False,
    tracking: str = "",
    code_version: str = "",
):
    """Train one set of hyperparameters with several seeds; a killed training goes on from its checkpoint.

    Args:
        dataset: The data set folder from prepare-data.
        model_file: Folder with model.pth (every replicate, loadable with weights_only=True) and training.json, which
            tells how it ran as well.
        metric: Deciding metric; its best validation epoch is kept.
        seeds: How many replicates to train.
        model: majority, mean, linear, mlp, cnn, resnet, tabular, boosting, or package.module:callable.
        n_layers: Hidden layers of mlp and tabular, convolutions of cnn, 9 or 18 of resnet.
        width: Units of a hidden layer, channels of a convolution.
        act: relu, leaky_relu, gelu, silu or tanh.
        dropout: Share of units dropped while training, from 0 to below 1.
        n_epochs: Most passes over the training split.
        batch_size: Rows of one step.
        lr: Highest learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        schedule: cosine, constant or one_cycle.
        warmup: Share of the steps in which lr rises from 0; 0.3 of a one_cycle that is given 0.
        patience: Epochs without a better validation value before stopping; 0 for never.
        label_smoothing: Share of each target that is spread over all classes.
        clip_norm: Longest gradient that is allowed; 0 for any.
        ema: How slowly averaged weights follow, such as 0.999; 0 for no averaging.
        flip: Whether images are mirrored at random.
        crop: Pixels that images are moved at most, at random.
        cutout: Side of a square that is blanked in each image; 0 for none.
        precision: auto (bfloat16 on a GPU, else float32), float32 or bfloat16.
        n_trees: Most trees of boosting.
        n_leaves: Most leaves of a tree of boosting.
        shrinkage: What each tree of boosting counts.
        options: Keywords for a model of your own, as a JSON object.
        overrides: Hyperparameters laid over the others, as a JSON object; a sweep names its winner here.
        first_seed: Seed of the first replicate; the others follow it.
        gpus: How many GPUs of this pod; "0" trains on the CPU, "2" or more share each batch.
        nodes: How many nodes; "2" or more train in a Kubeflow Trainer TrainJob instead of in this pod.
        node_gpus: How many GPUs each node of a TrainJob has.
        gpu_type: Resource name of the GPUs of a TrainJob.
        store: Where checkpoints go, and where data set and model pass to the nodes of a TrainJob.
        profile: Whether to write trace.json.gz beside the model, a trace of a few steps; it changes no result.
        tracking: Trackers to tell of each epoch, and under which name, such as mlflow:digits/wider; no result changes.
        code_version: Version of the code; part of the cache key.
    """
    given = dict(locals())
    from pathlib import Path

    from basekamp.cluster.trainjob import train_on_nodes
    from basekamp.hyperparameters import Hyperparameters

    settings = Hyperparameters.from_arguments(given)
    folders = (Path(dataset.path), Path(model_file.path))
    place = {"gpus": gpus, "nodes": nodes, "node_gpus": node_gpus, "gpu_type": gpu_type, "store": store}
    how = {"metric": metric, "seeds": seeds, "first_seed": first_seed, "profile": profile, "tracking": tracking}
    training = train_on_nodes(*folders, settings, **how, **place)
    model_file.metadata.update(training.metadata())
