"""Gradient-boosted trees by scikit-learn: the strong and cheap rung that a network has to beat.

Shapes: n rows, d columns or pixels, k classes. Source: Ke et al., LightGBM, 2017, which scikit-learn follows.
"""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basekamp.data.dataset import Dataset, Schema
from basekamp.evaluation.metrics import metric_value
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.trees import grown_trees
from basekamp.training.course import Course
from basekamp.training.feed import as_trained

PATIENCE = 20
"""Rounds without a lower validation loss after which no more trees are grown."""

SHARE_OF_FEATURES = 0.7
"""What each split may choose from, drawn at random: so the seeds differ, and the trees resemble each other less."""


def fit_boosting(data: Dataset, settings: Hyperparameters, *, seed: int, metric: str) -> Course:
    """Grow trees on the training split, and keep as many rounds of them as do best on the validation split.

    An epoch is a round: a tree for each class, or one tree for two classes and for numbers. Epoch 0 is the constant
    that all begin from. Codes of categories are split like numbers.
    """
    started = time.perf_counter()
    train, validation, schema = data.split("train"), data.split("validation"), data.schema
    x_validation, targets = _rows(validation.x), np.asarray(validation.y)
    model = _model(settings, schema, seed)
    y, y_validation = as_trained(schema, np.asarray(train.y)), as_trained(schema, targets)
    model.fit(_rows(train.x), y, X_val=x_validation, y_val=y_validation)
    course = Course(n_epochs=model.n_iter_, ended="finished" if model.n_iter_ == settings.n_trees else "early")
    for done, outputs in enumerate(_outputs(model, x_validation, schema)):
        course.note(done, metric, *(metric_value(name, targets, outputs) for name in (metric, "loss")))
    course.curves["train_loss"] = [float(-score) for score in model.train_score_[1:]]
    course.curves["lr"] = [settings.shrinkage] * model.n_iter_
    course.best_weights = grown_trees(model._predictors[: course.best_epoch], model._baseline_prediction)
    course.seconds = time.perf_counter() - started
    return course


def _model(settings: Hyperparameters, schema: Schema, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    is_classification = schema.task == "classification"
    return (HistGradientBoostingClassifier if is_classification else HistGradientBoostingRegressor)(
        learning_rate=settings.shrinkage,
        max_iter=settings.n_trees,
        max_leaf_nodes=settings.n_leaves,
        max_features=SHARE_OF_FEATURES,
        early_stopping=True,
        n_iter_no_change=PATIENCE,
        random_state=seed,
    )


def _rows(x: NDArray[Any]) -> NDArray[Any]:
    """Images as rows of pixels."""
    return np.asarray(x).reshape(len(x), -1)


def _outputs(model: Any, x: NDArray[Any], schema: Schema) -> Iterator[NDArray[np.float32]]:
    """What the constant, then one round more each time, answers: probabilities, or values in the target's unit."""
    constant = np.repeat(np.reshape(model._baseline_prediction, (1, -1)), len(x), axis=0)
    if schema.task == "regression":
        mean, std = schema.target_mean, schema.target_std
        for values in (constant[:, 0], *model.staged_predict(x)):
            yield (values * std + mean).astype(np.float32)
        return
    yield model._loss.predict_proba(constant).astype(np.float32)
    for probabilities in model.staged_predict_proba(x):
        yield probabilities.astype(np.float32)
