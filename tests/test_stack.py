"""Stacks: K networks side by side compute what each computes alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

from basekamp.data.dataset import Schema
from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model
from basekamp.models.layers import Linear, SeededDropout, first_key, key_after, next_keys, seed_dropouts
from basekamp.models.networks import Perceptron, ResNet
from basekamp.models.tabular import Tabular, bin_edges
from basekamp.training.optimizer import clip_gradients
from basekamp.training.stack import Stack, why_not_stacked
from tests.schemas import image_schema, table_rows, table_schema

torch.manual_seed(3)  # the same inputs in every process
IMAGES = torch.randint(256, (6, 1, 8, 8), dtype=torch.uint8)
ROWS = table_rows(6, 3, (4, 5))


def built(schema: Schema, **values: object) -> nn.Module:
    return build_model(Hyperparameters.from_mapping(values), schema)


def mlp() -> nn.Module:
    return Perceptron(Linear(5, 7), 3, n_layers=2, width=7, act="gelu", dropout=0.3)


def batch_normed() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), SeededDropout(0.2), nn.Linear(6, 3))


NETWORKS = {
    "mlp": (mlp, torch.randn(6, 5)),
    "batch norm": (batch_normed, torch.randn(6, 5)),
    "resnet": (lambda: ResNet(1, 3, n_layers=9, width=2, act="relu", dropout=0.1), torch.randn(6, 1, 8, 8)),
    "linear on images": (lambda: built(image_schema(1, 8, 8), model="linear"), IMAGES),
    "cnn": (lambda: built(image_schema(1, 8, 8), model="cnn", width=3), IMAGES),
    "mlp on a table": (lambda: built(table_schema(3, 4, 5, classes=2), model="mlp", width=6), ROWS),
    "tabular": (
        lambda: Tabular(bin_edges(ROWS[:, :3]), (4, 5), 2, n_layers=2, width=8, act="relu", dropout=0.2),
        ROWS,
    ),
}


@pytest.mark.parametrize("own_rows", [False, True], ids=["shared rows", "own rows"])
@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_networks_give_the_outputs_gradients_and_averages_of_each_alone(name, own_rows):
    torch.manual_seed(3)
    build, x = NETWORKS[name]
    networks = [build() for _ in range(3)]
    alone = [Stack([copy.deepcopy(network)], channels_last=True) for network in networks]
    together = Stack(networks)
    together.set_keys([5, 6, 7], steps=9)
    for seed, one in zip((5, 6, 7), alone, strict=True):
        one.set_keys([seed], steps=9)
    rows = torch.stack([x, x.flip(0), x.roll(1, 0)]) if own_rows else x
    outputs = together(rows, own_rows=own_rows)
    expected = torch.stack([one(rows[k] if own_rows else rows) for k, one in enumerate(alone)])
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    outputs.square().sum().backward()
    expected.square().sum().backward()
    for k, one in enumerate(alone):
        for ours, theirs in zip(together.per_network(together.gradients), one.per_network(one.gradients), strict=True):
            largest = max(1.0, float(theirs[0].abs().max()))  # sums of many terms: rounding is of their size
            torch.testing.assert_close(ours[k], theirs[0], rtol=1e-3, atol=1e-4 * largest)
        assert_equal_states(together.state_dict(k), one.state_dict(0))


def assert_equal_states(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)
        assert tensor.is_contiguous()


@pytest.mark.parametrize("name", NETWORKS)
def test_state_of_a_stacked_network_loads_into_one_alone(name):
    build, x = NETWORKS[name]
    networks = [build() for _ in range(3)]
    outputs = [network.eval()(x) for network in copy.deepcopy(networks)]
    stack = Stack(networks)
    for k, expected in enumerate(outputs):
        network = build()
        network.load_state_dict(stack.state_dict(k))
        torch.testing.assert_close(network.eval()(x), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_stack_goes_on_with_the_networks_kept(name):
    build, x = NETWORKS[name]
    networks = [build() for _ in range(4)]
    outputs = [network.eval()(x) for network in copy.deepcopy(networks)]
    stack = Stack(networks)
    stack.keep([1, 3])
    stack.eval()
    torch.testing.assert_close(stack(x), torch.stack([outputs[1], outputs[3]]), rtol=1e-4, atol=1e-5)
    stack.keep([1])
    torch.testing.assert_close(stack(x), outputs[3], rtol=1e-4, atol=1e-5)


def test_selection_leaves_the_same_numbers_in_every_tensor_of_that_layout():
    stack = Stack([mlp() for _ in range(3)])
    numbered = torch.arange(len(stack.storage), dtype=torch.float32)
    kept = stack.selection([2, 0])(numbered)
    expected = torch.cat([part[[2, 0]].flatten() for part in stack.per_network(numbered)])
    assert torch.equal(kept, expected)
    moments = stack.selection([2, 0])(numbered[: len(stack.trained)])
    assert torch.equal(moments, kept[: len(moments)])


def test_holding_other_numbers_gives_ones_own_back_and_snapshots_them_meanwhile():
    stack = Stack([mlp() for _ in range(2)])
    own = stack.storage.clone()
    with stack.holding(torch.zeros_like(own)):
        assert not stack(torch.randn(2, 5)).any()
        assert torch.equal(stack.snapshot(), own)
    assert torch.equal(stack.storage, own)


def test_clipping_shortens_each_networks_gradient_to_the_norm_and_leaves_shorter_ones():
    stack = Stack([mlp() for _ in range(3)])
    for k, length in enumerate((10.0, 0.5, 2.0)):
        parts = stack.per_network(stack.gradients)
        for part in parts:
            part[k] = torch.randn(part[k].shape)
        norm = torch.sqrt(sum(part[k].square().sum() for part in parts))
        for part in parts:
            part[k] *= length / norm
    before = [part.clone() for part in stack.per_network(stack.gradients)]
    clip_gradients(stack, 1.0)
    for k, factor in enumerate((0.1, 1.0, 0.5)):
        for part, old in zip(stack.per_network(stack.gradients), before, strict=True):
            torch.testing.assert_close(part[k], old[k] * factor, rtol=1e-4, atol=1e-6)


class Noisy(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand_like(x) * self.training)


class Branching(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.weight.sum() > 0 else super().forward(-x)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: nn.Linear(5, 2), ""),
        (batch_normed, ""),
        (lambda: nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4), nn.Linear(4, 2)), ""),
        (lambda: Noisy(5, 2), "random"),
        (lambda: Branching(5, 2), "data-dependent control flow"),
        (lambda: nn.Sequential(nn.Linear(5, 2), nn.AlphaDropout(0.5)), "random"),
    ],
    ids=["linear", "batch norm", "layer norm", "own random numbers", "branches", "other dropout"],
)
def test_what_cannot_be_stacked_is_told_with_its_reason(build, reason):
    told = why_not_stacked([build(), build()], torch.randn(4, 5))
    assert bool(told) == bool(reason)
    assert reason in told
    assert "\n" not in told


def test_tied_parameters_stay_tied():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(5, 5)
            self.second = nn.Linear(5, 5)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())

    networks, x = [Tied() for _ in range(2)], torch.randn(4, 5)
    assert why_not_stacked(networks, x) == ""
    stack = Stack(networks)
    state = stack.state_dict(1)
    assert torch.equal(state["first.weight"], state["second.weight"])


def test_parameters_of_several_types_are_refused():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(InputError, match=r"holds numbers of several types \(float32, float64\): let all be float32"):
        Stack([network])


def test_dropout_drops_its_share_scales_up_and_follows_from_its_key():
    layer, x = SeededDropout(0.3), torch.ones(2000, 50)
    layer.key.fill_(first_key(0, 0))
    out = layer(x)
    assert float((out == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert float(out.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(layer(x), out)
    next_keys(layer.key)
    other = layer(x)
    both = float(((out == 0) & (other == 0)).float().mean())
    assert both == pytest.approx(0.09, abs=0.005)
    assert int(layer.key) == key_after(first_key(0, 0), 1)
    assert torch.equal(layer.eval()(x), x)


def test_dropout_masks_of_seeds_layers_and_steps_are_unrelated():
    keys = [
        key_after(first_key(seed, layer), steps) for seed in range(4) for layer in range(2) for steps in (0, 1, 999)
    ]
    layer, masks = SeededDropout(0.5), []
    for key in keys:
        layer.key.fill_(key)
        masks.append((layer(torch.ones(20_000)) == 0).float())
    assert torch.corrcoef(torch.stack(masks)).fill_diagonal_(0).abs().max() < 0.04


def test_keys_wrap_around_like_the_tensor_that_holds_them():
    key, steps = torch.tensor(first_key(3, 1), dtype=torch.int32), 1000
    for _ in range(steps):
        next_keys(key)
    assert int(key) == key_after(first_key(3, 1), steps)


def test_plain_dropouts_of_an_own_network_become_seeded_ones_and_others_stay():
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.4)), nn.Dropout2d(0.1))
    seed_dropouts(network)
    assert isinstance(network[1][0], SeededDropout)
    assert float(network[1][0].p) == pytest.approx(0.4)
    assert type(network[2]) is nn.Dropout2d
