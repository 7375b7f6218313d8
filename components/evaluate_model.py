"""Kubeflow component: model to scorecard."""

from kfp import dsl

from components import component


@component
def evaluate_model(
    dataset: dsl.Input[dsl.Dataset],
    model_file: dsl.Input[dsl.Model],
    scorecard: dsl.Output[dsl.Metrics],
    classification: dsl.Output[dsl.ClassificationMetrics],
    evaluation: dsl.Output[dsl.Artifact],
    metric: str,
    gpus: str = "0",
    code_version: str = "",
):
    """Evaluate every replicate of a model on the validation split.

    Args:
        dataset: The data set folder from prepare-data.
        model_file: The model folder from train-model.
        scorecard: The deciding metric and the usual others, mean over replicates; the same keys for every run.
        classification: Confusion matrix and, with two classes, ROC of the replicate with the median metric.
        evaluation: Folder with evaluation.json, predictions.npz, network.json and worst.json.
        metric: Deciding metric.
        gpus: How many GPUs; "0" evaluates on the CPU.
        code_version: Version of the code; part of the cache key.
    """
    from pathlib import Path

    from basekamp.evaluation.evaluate import evaluate_model

    model = Path(model_file.path) / "model.pth"
    told = evaluate_model(Path(dataset.path), model, Path(evaluation.path), metric=metric, gpus=gpus, examine=True)
    told.log_scorecard(scorecard)
    told.log_classification(classification)
