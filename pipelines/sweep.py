"""A sweep as one pipeline run: rounds of trials, packed; then its winner, trained again on fresh seeds and judged."""

from kfp import dsl

from basekamp.sweeps.rounds import ROUNDS
from basekamp.sweeps.settings import SWEEP
from components.check_data import check_data
from components.compare_models import compare_models
from components.conclude_sweep import conclude_sweep
from components.evaluate_model import evaluate_model
from components.measure_ladder import measure_ladder
from components.plan_sweep import plan_sweep
from components.prepare_data import prepare_data
from components.train_model import train_model
from components.train_trials import train_trials
from pipelines.placement import ask_for, on_gpus, reaches_store, reaches_trackers, trains_on

FRESH_SEED = 1000
"""The first seed of the winner's training: the trials have used none of them."""


@dsl.pipeline(name="train-pack")
def train_pack(
    dataset: dsl.Input[dsl.Dataset],
    pack: str,
    experiment: str,
    store: str,
    gpus: str,
    gpu_type: str,
    cpu: str,
    memory: str,
    node_selector: dict[str, str],
    tolerations: list[dict[str, str]],
) -> str:
    """Train one pack of trials; a pipeline of its own, for kfp does not hand what a step asks for into a loop."""
    tried = train_trials(dataset=dataset, pack=pack, experiment=experiment, store=store, gpus=gpus)
    tried.set_caching_options(False)
    ask_for(tried, cpu=cpu, memory=memory)
    on_gpus(tried, gpu_type=gpu_type, count=gpus)
    trains_on(tried, node_selector=node_selector, tolerations=tolerations)
    reaches_store(tried)
    return tried.output


@dsl.pipeline(name="sweep")
def sweep(
    experiment: str,
    source: str,
    target: str,
    metric: str,
    store: str,
    sweep: str,
    settings: str,
    attempt: str = SWEEP,
    hypothesis: str = "",
    expect: float = 0.0,
    seeds: int = 3,
    packs: int = 1,
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
    """Search settings in rounds of trials, then judge the winner, trained on fresh seeds, against the baseline.

    Args:
        experiment: Name of the experiment; it must have a baseline.
        source: Path, URL, s3:// or minio:// object, or a bundled data set such as sklearn:digits.
        target: Name of the column to predict.
        metric: Deciding metric: accuracy, balanced_accuracy, f1, auc, loss, rmse, mae or r2.
        store: Folder, s3://bucket/prefix or minio://bucket/prefix where records live.
        sweep: The sweep block of the experiment file, as a JSON object.
        settings: Every hyperparameter that the trials start from, as a JSON object.
        attempt: Name of the attempt that the winner becomes.
        hypothesis: Why some of the settings should be better.
        expect: Smallest gain that matters, in the metric's unit.
        seeds: How many replicates of the winner to train.
        packs: How many parts of a round train at once, each on a GPU of its own; 1 to 12.
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
        gpus: How many GPUs the winner's train-model is given; "0" trains on the CPU.
        gpu_type: Resource name of the GPU, such as nvidia.com/gpu or nvidia.com/mig-1g.10gb.
        evaluation_gpus: How many GPUs each pack of trials, evaluate-model and compare-models are given; "0" or "1".
        nodes: How many nodes train the winner; "2" or more make train-model start a Kubeflow Trainer TrainJob.
        node_gpus: How many GPUs each node of a TrainJob has.
        cpu: CPU cores each step asks for, such as 1 or 500m.
        memory: Memory each step asks for and may not exceed, such as 4Gi; shared memory counts in it.
        node_selector: Labels of the nodes that trainings may run on, such as {"pool": "a100"}.
        tolerations: Taints that trainings tolerate, as Kubernetes tolerations.
        profile: Whether to write a trace of a few steps of the winner's training beside its model.
        tracking: Trackers to tell, mlflow or wandb or both with a comma, and after a colon experiment/attempt there.
        image: Reference of the components' image, for the record.
        data_fingerprint: Fingerprint the source must have; empty for any. Part of the cache key.
        code_version: Version of the code; part of the cache key.
    """
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
    dataset = prepared.outputs["dataset"]
    checked = check_data(dataset=dataset, store=store, experiment=experiment, attempt=attempt, checks=checks)
    measured = measure_ladder(dataset=dataset, metric=metric, code_version=code_version).after(checked)
    asked = {"experiment": experiment, "metric": metric, "store": store, "sweep": sweep, "settings": settings}
    rounds, done = [], {}
    for number in range(ROUNDS):
        planned = plan_sweep(dataset=dataset, round_number=number, packs=packs, **asked, **done).after(checked)
        with dsl.ParallelFor(planned.output) as pack:
            tried = train_pack(
                dataset=dataset,
                pack=pack,
                experiment=experiment,
                store=store,
                gpus=evaluation_gpus,
                gpu_type=gpu_type,
                cpu=cpu,
                memory=memory,
                node_selector=node_selector,
                tolerations=tolerations,
            )
        done = {"done": dsl.Collected(tried.output)}
        rounds.append(planned)
    concluded = conclude_sweep(experiment=experiment, store=store, **done)
    trained = train_model(
        dataset=dataset,
        metric=metric,
        seeds=seeds,
        overrides=concluded.outputs["Output"],
        first_seed=FRESH_SEED,
        gpus=gpus,
        nodes=nodes,
        node_gpus=node_gpus,
        gpu_type=gpu_type,
        profile=profile,
        tracking=tracking,
        store=store,
        code_version=code_version,
    )
    evaluated = evaluate_model(
        dataset=dataset,
        model_file=trained.outputs["model_file"],
        metric=metric,
        gpus=evaluation_gpus,
        code_version=code_version,
    )
    compared = compare_models(
        dataset=dataset,
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
    for step in (checked, *rounds, concluded, compared):
        step.set_caching_options(False)
    ask_for(prepared, checked, measured, *rounds, concluded, trained, evaluated, compared, cpu=cpu, memory=memory)
    on_gpus(trained, gpu_type=gpu_type, count=gpus)
    on_gpus(evaluated, compared, gpu_type=gpu_type, count=evaluation_gpus)
    trains_on(trained, node_selector=node_selector, tolerations=tolerations)
    reaches_store(prepared, checked, *rounds, concluded, trained, compared)
    reaches_trackers(trained, compared)
