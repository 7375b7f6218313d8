import builtins
import dis
import inspect

import pytest
import yaml

from basekamp.cluster.trainjob import train_on_nodes
from basekamp.experiment import DataSettings, Split
from basekamp.hyperparameters import Hyperparameters
from components.check_data import check_data
from components.compare_models import compare_models
from components.conclude_sweep import conclude_sweep
from components.evaluate_model import evaluate_model
from components.measure_ladder import measure_ladder
from components.plan_sweep import plan_sweep
from components.prepare_data import prepare_data
from components.train_model import train_model
from components.train_trials import train_trials

COMPONENTS = [
    prepare_data,
    check_data,
    measure_ladder,
    train_model,
    evaluate_model,
    compare_models,
    plan_sweep,
    train_trials,
    conclude_sweep,
]
MOST_STATEMENTS = 15


def by_name(component):
    return component.python_func.__name__


@pytest.mark.parametrize("component", COMPONENTS, ids=by_name)
def test_component_body_uses_no_module_level_name(component):
    loaded = {step.argval for step in dis.get_instructions(component.python_func) if step.opname == "LOAD_GLOBAL"}
    assert loaded - set(dir(builtins)) == set()
    assert component.python_func.__closure__ is None


@pytest.mark.parametrize("component", COMPONENTS, ids=by_name)
def test_component_body_is_thin(component):
    import ast
    import textwrap

    function = ast.parse(textwrap.dedent(inspect.getsource(component.python_func))).body[0]
    statements = [node for node in ast.walk(function) if isinstance(node, ast.stmt)]
    assert len(statements) - 2 <= MOST_STATEMENTS  # without the function and its docstring
    assert not [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.If | ast.For | ast.While | ast.BinOp)
        and not isinstance(getattr(node, "op", None), ast.Div)
    ]


@pytest.mark.parametrize("component", COMPONENTS, ids=by_name)
def test_component_describes_every_input_and_output(component):
    inputs = component.component_spec.inputs
    assert [name for name, told in inputs.items() if not told.description] == []
    documented = component.python_func.__doc__.replace("Returns:", "Output:")
    assert [
        name
        for name in component.component_spec.outputs
        if f"\n    {'' if name == 'Output' else '    '}{name}:" not in documented
    ] == []


@pytest.mark.parametrize("component", COMPONENTS, ids=by_name)
def test_component_installs_nothing_when_it_runs(component):
    command = " ".join(component.component_spec.implementation.container.command)
    assert "pip install" not in command


def defaults(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def test_train_model_defaults_equal_the_librarys():
    ours = defaults(train_model.python_func)
    theirs = {name: field.default for name, field in Hyperparameters.model_fields.items()}
    assert ours.pop("options") == ours.pop("overrides") == "{}" and theirs.pop("options") == {}
    assert ours.pop("code_version") == ""
    in_library = defaults(train_on_nodes)
    assert {name: ours.pop(name) for name in in_library} == in_library
    assert ours == theirs


def test_prepare_data_defaults_equal_the_librarys():
    ours = defaults(prepare_data.python_func)
    theirs = {name: DataSettings.model_fields[name].default for name in ("task", "rare")}
    theirs |= {name: Split.model_fields[name].default for name in ("validation", "test", "group", "time")}
    theirs["data_version"] = DataSettings.model_fields["version"].default
    assert ours == {**theirs, "drop": [], "reading": {}, "data_fingerprint": "", "code_version": ""}


def test_import_of_basekamp_and_help_load_neither_torch_nor_kfp():
    import subprocess
    import sys

    program = (
        "import sys, basekamp\n"
        "from basekamp.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'kfp', 'numpy', 'polars', 'pydantic', 'minio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_experiment_file_is_the_only_place_of_settings_in_the_pipeline():
    """Every hyperparameter is a pipeline parameter of its own, under the same name."""
    from basekamp.cluster.compiled import compiled_pipeline

    spec = next(yaml.safe_load_all(compiled_pipeline().read_text()))
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert set(Hyperparameters.model_fields) <= set(parameters)
