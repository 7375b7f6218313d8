"""Gradient-boosted trees as a network: what scikit-learn grew, held in tensors, so that no pickle is ever loaded.

Shapes: n rows, d columns or pixels, t trees, m nodes of the largest tree, r raw scores (1 for two classes, and for
regression).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_TREES_AT_ONCE = 256
_TENSORS = ("feature", "threshold", "left", "right", "value", "baseline", "depth")


class TreeEnsemble(nn.Module):
    """The sum of t trees, tree i adding to raw score i % r; a leaf is its own left and right neighbour.

    feature, left, right int32 [t, m]; threshold, value float32 [t, m]; baseline float32 [r]; depth int32 [].
    """

    def __init__(self, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.feature: Tensor
        self.threshold: Tensor
        self.left: Tensor
        self.right: Tensor
        self.value: Tensor
        self.baseline: Tensor
        self.depth: Tensor
        for name in ("feature", "left", "right"):
            self.register_buffer(name, torch.zeros((0, 1), dtype=torch.int32))
        for name in ("threshold", "value"):
            self.register_buffer(name, torch.zeros((0, 1)))
        self.register_buffer("baseline", torch.zeros(1 if n_outputs <= 2 else n_outputs))
        self.register_buffer("depth", torch.zeros((), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """Answer [n, k]: logits, or the standardised target."""
        x = x.flatten(1).float()
        raw = self.baseline.repeat(len(x), 1)
        for begin in range(0, len(self.feature), _TREES_AT_ONCE):
            some = torch.arange(begin, min(begin + _TREES_AT_ONCE, len(self.feature)), device=x.device)
            raw.index_add_(1, some % len(self.baseline), self._leaves(x, some))
        return torch.cat([torch.zeros_like(raw), raw], dim=1) if self.n_outputs == 2 else raw

    def _leaves(self, x: Tensor, trees: Tensor) -> Tensor:
        """The value of the leaf that each row falls into, [n, number of trees]."""
        feature, threshold, left, right, value = (
            getattr(self, name)[trees] for name in ("feature", "threshold", "left", "right", "value")
        )
        tree = torch.arange(len(trees), device=x.device)
        node = torch.zeros((len(x), len(trees)), dtype=torch.long, device=x.device)
        for _ in range(int(self.depth)):
            is_left = x.gather(1, feature[tree, node].long()) <= threshold[tree, node]
            node = torch.where(is_left, left[tree, node], right[tree, node]).long()
        reached: Tensor = value[tree, node]
        return reached

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        """Take trees of whatever number and size, if they hold together."""
        found = {name: state_dict.get(f"{prefix}{name}") for name in _TENSORS}
        own = {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
        if len(own) == len(_TENSORS):
            _check(own)
            for name, tensor in own.items():
                setattr(self, name, torch.empty_like(tensor, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def grown_trees(predictors: list[list[Any]], baseline: NDArray[np.float64]) -> dict[str, Tensor]:
    """The state of a `TreeEnsemble` from what HistGradientBoosting grew: a list of trees for each iteration.

    Thresholds become the largest float32 that is not above them, which decides alike for every float32.
    """
    trees = [tree.nodes for iteration in predictors for tree in iteration]
    shape = (len(trees), max((len(nodes) for nodes in trees), default=1))
    feature, left, right = (np.zeros(shape, dtype=np.int32) for _ in range(3))
    threshold, value = (np.zeros(shape, dtype=np.float32) for _ in range(2))
    for i, nodes in enumerate(trees):
        n, itself, is_leaf = len(nodes), np.arange(len(nodes)), nodes["is_leaf"].astype(bool)
        feature[i, :n] = nodes["feature_idx"]
        left[i, :n] = np.where(is_leaf, itself, nodes["left"])
        right[i, :n] = np.where(is_leaf, itself, nodes["right"])
        threshold[i, :n] = _not_above(nodes["num_threshold"])
        value[i, :n] = nodes["value"]
    depth = max((int(nodes["depth"].max()) for nodes in trees), default=0)
    arrays = {"feature": feature, "threshold": threshold, "left": left, "right": right, "value": value}
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    state["baseline"] = torch.tensor(np.ravel(baseline), dtype=torch.float32)
    return {**state, "depth": torch.tensor(depth, dtype=torch.int32)}


def _not_above(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    rounded = numbers.astype(np.float32)
    return np.where(rounded > numbers, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _check(tensors: dict[str, Tensor]) -> None:
    """Raises RuntimeError, as loading a state does, for trees that lead out of themselves or never end."""
    shape = tensors["feature"].shape
    if len(shape) != 2 or any(tensors[name].shape != shape for name in ("threshold", "left", "right", "value")):
        raise RuntimeError("the trees are not of one shape")
    nodes = shape[-1]
    for name in ("left", "right"):
        if ((tensors[name] < 0) | (tensors[name] >= nodes)).any():
            raise RuntimeError(f"{name} does not name nodes of its tree")
    if not 0 <= int(tensors["depth"]) <= nodes or (tensors["feature"] < 0).any():
        raise RuntimeError("depth or feature is out of range")
