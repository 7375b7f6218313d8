"""Networks from hyperparameters and a schema."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from basekamp.data.dataset import Schema
from basekamp.errors import InputError
from basekamp.hyperparameters import Hyperparameters
from basekamp.models.build import build_model, count_multiplications, count_parameters
from basekamp.models.inputs import MixedColumns, NormalizedImage, OneHotColumns
from basekamp.models.layers import SeededDropout
from basekamp.models.networks import ACTIVATIONS
from tests.schemas import image_schema, table_rows, table_schema


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """So little work is slower on more threads, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(schema: Schema, **values: object) -> nn.Module:
    torch.manual_seed(0)
    return build_model(Hyperparameters.from_mapping(values), schema)


@settings(max_examples=25, deadline=None)
@given(n_numeric=st.integers(0, 4), cardinalities=st.lists(st.integers(1, 6), max_size=4), n=st.integers(1, 9))
def test_mixed_columns_is_a_linear_layer_over_one_hot_columns(n_numeric, cardinalities, n):
    mixed, spread = MixedColumns(n_numeric, cardinalities, 5), OneHotColumns(n_numeric, cardinalities)
    nn.init.normal_(mixed.bias)
    weights = [part.weight.T for part in [mixed.numbers] if part] + [part.weight for part in [mixed.categories] if part]
    x = table_rows(n, n_numeric, tuple(cardinalities))
    expected = spread(x) @ torch.cat(weights) + mixed.bias if weights else mixed.bias.expand(n, -1)
    torch.testing.assert_close(mixed(x), expected)


def test_mixed_columns_learn_only_the_categories_that_were_seen():
    mixed = MixedColumns(0, [3, 2], 4)
    mixed(torch.tensor([[2.0, 0.0]])).sum().backward()
    assert mixed.categories.weight.grad.abs().sum(dim=1).bool().tolist() == [False, False, True, True, False]


def test_one_hot_columns_spread_codes_behind_the_numbers():
    x = torch.tensor([[0.5, 1.0, 0.0], [-1.0, 0.0, 2.0]])
    assert OneHotColumns(1, [2, 3])(x).tolist() == [[0.5, 0, 1, 1, 0, 0], [-1, 1, 0, 0, 0, 1]]


def test_normalized_image_uses_the_training_pixels_of_each_channel():
    schema = image_schema(2, 1, 1).model_copy(update={"pixel_mean": (10.0, 20.0), "pixel_std": (5.0, 10.0)})
    pixels = torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)
    assert NormalizedImage(schema)(pixels).flatten().tolist() == [-2.0, 23.5]


@pytest.mark.parametrize("n_layers", range(1, 7))
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 5), (1, 28, 28), (1, 8, 8), (1, 2, 64)])
def test_cnn_takes_images_of_any_size(shape, n_layers):
    model = build(image_schema(*shape), model="cnn", n_layers=n_layers, width=4)
    outputs = model(torch.randint(256, (2, *shape), dtype=torch.uint8))
    outputs.square().sum().backward()
    assert outputs.shape == (2, 3)
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == n_layers


@pytest.mark.parametrize("n_layers", range(1, 5))
def test_mlp_has_n_hidden_layers_of_its_width(n_layers):
    model = build(table_schema(6, classes=3), model="mlp", n_layers=n_layers, width=10)
    assert count_parameters(model) == 6 * 10 + 10 + (n_layers - 1) * (10 * 10 + 10) + 10 * 3 + 3
    assert sum(isinstance(layer, nn.ReLU) for layer in model.modules()) == n_layers


@pytest.mark.parametrize(
    ("schema", "inputs", "outputs"),
    [
        (image_schema(3, 4, 5), 60, 3),
        (table_schema(2, 4, 3), 9, 1),
        (table_schema(0, 4, classes=2), 4, 2),
        (table_schema(1), 1, 1),
    ],
    ids=["image", "mixed", "categories", "one number"],
)
def test_linear_has_one_weight_per_input_and_output(schema, inputs, outputs):
    model = build(schema, model="linear", n_layers=7, width=99)
    assert count_parameters(model) == inputs * outputs + outputs
    x = torch.zeros(2, *schema.input_shape, dtype=torch.uint8 if schema.kind == "image" else torch.float32)
    assert model(x).shape == (2, outputs)


@pytest.mark.parametrize("act", sorted(ACTIVATIONS))
def test_every_activation_and_dropout_reach_the_network(act):
    for schema, name in ((table_schema(3), "mlp"), (image_schema(1, 4, 4), "cnn")):
        layers = list(build(schema, model=name, act=act, dropout=0.25, width=4).modules())
        assert any(type(layer) is ACTIVATIONS[act] for layer in layers)
        assert any(isinstance(layer, SeededDropout) and layer.p == 0.25 for layer in layers)


def test_a_convolution_counts_at_every_pixel():
    model = build(image_schema(1, 2, 3, classes=2), model="cnn", n_layers=1, width=4)
    assert count_multiplications(model, image_schema(1, 2, 3)) == 4 * 9 * 6 + 4 + 4 * 6 * 2 + 2


def test_constant_models_answer_their_prior_without_parameters():
    prior = torch.tensor([0.1, 0.2, 0.7]).log()
    model = build_model(Hyperparameters(model="majority"), table_schema(2, classes=3), fitted=prior)
    torch.testing.assert_close(model(torch.zeros(4, 2)).softmax(dim=1), torch.tensor([[0.1, 0.2, 0.7]] * 4))
    assert count_parameters(model) == 0


@pytest.mark.parametrize(
    ("schema", "name", "message"),
    [
        (
            table_schema(2, classes=3),
            "mean",
            "model: mean does not fit a classification target: use model: majority.",
        ),
        (table_schema(2), "majority", "model: majority does not fit a regression target: use model: mean."),
        (table_schema(2), "cnn", "model: cnn needs images, and table.csv holds a table: use model: mlp."),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused(schema, name, message):
    with pytest.raises(InputError) as refusal:
        build(schema, model=name)
    assert str(refusal.value) == message


@pytest.fixture
def my_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory's `my_models.py`, yet to be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    return tmp_path / "my_models.py"


BUILD = """
import math
from torch import nn

def build(input_shape, n_outputs, units=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), units), nn.Linear(units, n_outputs))

class Family:
    build = staticmethod(build)

not_callable = 3
def nothing(input_shape, n_outputs): return "a text"
def broken(input_shape, n_outputs): raise ValueError("two\\nlines")
"""


@pytest.mark.parametrize("schema", [image_schema(3, 2, 2), table_schema(4, 5, 3, classes=3)], ids=["image", "table"])
@pytest.mark.parametrize("attribute", ["build", "Family.build"])
def test_own_model_gets_shape_outputs_and_options(my_models, schema, attribute):
    my_models.write_text(BUILD)
    model = build(schema, model=f"my_models:{attribute}", options={"units": 6})
    assert count_parameters(model) == 12 * 6 + 6 + 6 * 3 + 3
    x = torch.ones(2, *schema.input_shape, dtype=torch.uint8 if schema.kind == "image" else torch.float32)
    assert model(x).shape == (2, 3)


IMPORTED = "cannot be imported"
BUILT = "let it take input_shape, n_outputs and the options, and return a torch.nn.Module."


@pytest.mark.parametrize(
    ("model", "options", "parts"),
    [
        ("my_modles:build", {}, (IMPORTED, "ModuleNotFoundError: No module named 'my_modles'", "on the path.")),
        ("my_models:biuld", {}, (IMPORTED, "AttributeError", "use package.module:callable")),
        ("my_models:not_callable", {}, ("is no callable: name a function that returns a torch.nn.Module.",)),
        ("my_models:build", {"depth": 3}, ("unexpected keyword argument 'depth'", BUILT)),
        ("my_models:broken", {}, ("cannot be built (ValueError: two lines)", BUILT)),
        ("my_models:nothing", {}, ("returned str: return a torch.nn.Module.",)),
    ],
)
def test_own_model_that_cannot_be_used_is_refused_in_one_line(my_models, model, options, parts):
    my_models.write_text(BUILD)
    with pytest.raises(InputError) as refusal:
        build(table_schema(2), model=model, options=options)
    message = str(refusal.value)
    assert message.startswith(f"model: {model} ")
    assert all(part in message for part in parts), message
    assert "\n" not in message


@pytest.mark.parametrize("source", ["def build(:", "import no_such_package", "1 / 0"])
def test_own_module_that_does_not_run_is_refused(my_models, source):
    my_models.write_text(source)
    with pytest.raises(InputError, match=r"^model: my_models:build cannot be imported \(\w+Error: "):
        build(table_schema(2), model="my_models:build")
