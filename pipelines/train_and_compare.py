"""One attempt (or the baseline) as one pipeline run: prepare, train, evaluate, compare."""

from kfp import dsl

from basekamp.hyperparameters import Hyperparameters
from components.check_data import check_data
from components.compare_models import compare_models
from components.evaluate_model import evaluate_model
from components.measure_ladder import measure_ladder
from components.prepare_data import prepare_data
from components.train_model import train_model
from pipelines.placement import ask_for, on_gpus, reaches_store, reaches_trackers, trains_on


@dsl.pipeline(name="train-and-compare")
def train_and_compare(
    experiment: str,
    source: str,
    target: str,
    metric: str,
    store: str,
    attempt: str = "baseline",
    hypothesis: str = "",
    expect: float = 0.0,
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
    task: str = "auto",
    drop: list[str] = [],  # noqa: B006 - kfp reads the default from the signature
    rare: int = 10,
    validation: float = 0.15,
    test: float = 0.2,
    group: str = "",
    time: str = "",
    data_version: str = "bytes",
    checks: dict[str, str] = {},  # noqa: B006
    reading: dict[str, object] = {},  # noqa: B006
    gpus: str = "0",
    gpu_type: str = "nvidia.com/gpu",
    evaluation_gpus: str = "0",
    nodes: str = "1",
    node_gpus: str = "0",
    cpu: str = "1",
    memory: str = "4Gi",
    node_selector: dict[str, str] = {},  # noqa: B006
    tolerations: list[dict[str, str]] = [],  # noqa: B006
    profile: bool = False,
    tracking: str = "",
    image: str = "",
    data_fingerprint: str = "",
    code_version: str = "",
):
    """Train one attempt with several seeds and judge it against the experiment's baseline.

    Args:
        experiment: Name of the experiment.
        source: Path, URL, s3:// or minio:// object, or a bundled data set such as sklearn:digits.
        target: Name of the column to predict.
        metric: Deciding metric: accuracy, balanced_accuracy, f1, auc, loss, rmse, mae or r2.
        store: Folder, s3://bucket/prefix or minio://bucket/prefix where records live.
        attempt: Name of the attempt; "baseline" makes the baseline.
        hypothesis: Why the attempt should be better.
        expect: Smallest gain that matters, in the metric's unit.
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
        task: auto, classification or regression.
        drop: Columns to leave out, such as known leaks.
        rare: Categories seen less often than this in the training split become one "other".
        validation: Share of rows for the validation split.
        test: Share of rows for the test split.
        group: Column whose equal values stay in one split; empty for none.
        time: Column of dates or numbers by which the newest rows are for testing; empty for none.
        data_version: What the data's fingerprint is of: bytes of the file, or content of its rows in any order.
        checks: From rule (schema, drift, leaking_feature, duplicates, group, time) to stop, warn or off.
        reading: How files are read: on_bad_row, missing and others, as data.reading in the experiment file.
        gpus: How many GPUs train-model is given; "0" trains on the CPU.
        gpu_type: Resource name of the GPU, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb.
        evaluation_gpus: How many GPUs evaluate-model and compare-models are given; "0" or "1".
        nodes: How many nodes train; "2" or more make train-model start a Kubeflow Trainer TrainJob.
        node_gpus: How many GPUs each node of a TrainJob has.
        cpu: CPU cores each step asks for, such as 1 or 500m.
        memory: Memory each step asks for and may not exceed, such as 4Gi; shared memory counts in it.
        node_selector: Labels of the nodes that train-model may run on, such as {"pool": "a100"}.
        tolerations: Taints that train-model tolerates, as Kubernetes tolerations.
        profile: Whether train-model writes a trace of a few steps beside the model.
        tracking: Trackers to tell, mlflow or wandb or both with a comma, and after a colon experiment/attempt there.
        image: Reference of the components' image, for the record.
        data_fingerprint: Fingerprint the source must have; empty for any. Part of the cache key.
        code_version: Version of the code; part of the cache key.
    """
    given = dict(locals())
    prepared = prepare_data(
        source=source,
        target=target,
        task=task,
        drop=drop,
        rare=rare,
        validation=validation,
        test=test,
        group=group,
        time=time,
        data_version=data_version,
        reading=reading,
        data_fingerprint=data_fingerprint,
        code_version=code_version,
    )
    checked = check_data(
        dataset=prepared.outputs["dataset"], store=store, experiment=experiment, attempt=attempt, checks=checks
    )
    measured = measure_ladder(dataset=prepared.outputs["dataset"], metric=metric, code_version=code_version).after(
        checked
    )
    trained = train_model(
        dataset=prepared.outputs["dataset"],
        metric=metric,
        seeds=seeds,
        **{name: given[name] for name in Hyperparameters.model_fields},
        gpus=gpus,
        nodes=nodes,
        node_gpus=node_gpus,
        gpu_type=gpu_type,
        store=store,
        profile=profile,
        tracking=tracking,
        code_version=code_version,
    ).after(checked)
    evaluated = evaluate_model(
        dataset=prepared.outputs["dataset"],
        model_file=trained.outputs["model_file"],
        metric=metric,
        gpus=evaluation_gpus,
        code_version=code_version,
    )
    compared = compare_models(
        dataset=prepared.outputs["dataset"],
        model_file=trained.outputs["model_file"],
        evaluation=evaluated.outputs["evaluation"],
        ladder=measured.outputs["ladder"],
        checked=checked.outputs["checked"],
        store=store,
        experiment=experiment,
        run_id=f"{dsl.PIPELINE_JOB_NAME_PLACEHOLDER}/{dsl.PIPELINE_JOB_ID_PLACEHOLDER}",
        attempt=attempt,
        hypothesis=hypothesis,
        expect=expect,
        image=image,
        gpus=evaluation_gpus,
        tracking=tracking,
    )
    # What they find depends on what the store holds by then.
    for step in (checked, compared):
        step.set_caching_options(False)
    ask_for(prepared, checked, measured, trained, evaluated, compared, cpu=cpu, memory=memory)
    on_gpus(trained, gpu_type=gpu_type, count=gpus)
    on_gpus(evaluated, compared, gpu_type=gpu_type, count=evaluation_gpus)
    trains_on(trained, node_selector=node_selector, tolerations=tolerations)
    reaches_store(prepared, checked, trained, compared)
    reaches_trackers(trained, compared)
