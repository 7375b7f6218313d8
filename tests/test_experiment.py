import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from basekamp.errors import InputError
from basekamp.experiment import METRICS, Experiment, load_experiment
from basekamp.hyperparameters import MODELS, Hyperparameters, override
from basekamp.yaml_file import read_yaml

EXAMPLES = Path(__file__).parent.parent / "examples"

SMALL = """\
experiment: small
data: {source: rows.csv, target: y}
metric: {name: accuracy}
"""

DESIGN = """\
experiment: flights
data:
  source: s3://datasets/flights.parquet
  target: late
  drop: [arr_delay]            # known leak
  split: {validation: 0.1, test: 0.2, group: tailnum}
metric: {name: accuracy, goal: maximize}
seeds: 3
baseline: {model: linear}
attempts:
  deeper:
    hypothesis: Two hidden layers catch interactions that a linear model cannot.
    expect: 0.005              # smallest gain that matters
    model: mlp
    n_layers: 2
    act: leaky_relu
sweep:
  start: deeper
  over: {lr: [1e-4, 3e-2, log], width: [64, 128, 256], dropout: [0.0, 0.3]}
  trials: 64
  method: halving
"""


@pytest.fixture
def load(tmp_path):
    """Write text or bytes as an experiment file and load it."""

    def write_and_load(content):
        path = tmp_path / "e.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_experiment(path)

    return write_and_load


def refusal(load, content):
    with pytest.raises(InputError) as caught:
        load(content)
    folder = r"C:\\" if os.name == "nt" else "/"
    return "\n".join(line.rsplit(f"{folder}e.yaml", 1)[-1] for line in str(caught.value).splitlines())


def test_design_example_loads_as_written(load):
    experiment = load(DESIGN)
    assert experiment.data.split.group == "tailnum"
    assert experiment.data.drop == ("arr_delay",)
    assert experiment.sweep.over["lr"] == [1e-4, 3e-2, "log"]
    deeper = experiment.hyperparameters("deeper")
    assert (deeper.model, deeper.n_layers, deeper.act) == ("mlp", 2, "leaky_relu")
    assert experiment.attempts["deeper"].expect == 0.005
    assert experiment.hyperparameters() == Hyperparameters(model="linear")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_example_file_loads(path):
    experiment = load_experiment(path)
    assert experiment.experiment == path.stem
    assert [experiment.hyperparameters(name).model for name in experiment.attempts]


def test_smallest_file_gets_defaults(load):
    experiment = load(SMALL)
    assert (experiment.seeds, experiment.baseline, experiment.attempts) == (3, {}, {})
    assert experiment.sweep is None
    assert (experiment.data.split.validation, experiment.data.split.test) == (0.15, 0.2)
    assert experiment.metric.goal == "maximize"


@pytest.mark.parametrize("name", METRICS)
def test_goal_follows_metric_name(load, name):
    assert load(SMALL.replace("accuracy", name)).metric.goal == METRICS[name]


@pytest.mark.parametrize(
    ("metric", "task", "known"),
    [
        ("accuracy", "auto", "classification"),
        ("rmse", "auto", "regression"),
        ("loss", "auto", "auto"),
        ("loss", "regression", "regression"),
    ],
)
def test_task_is_what_file_says(load, metric, task, known):
    text = SMALL.replace("accuracy", metric).replace("target: y", f"target: y, task: {task}")
    assert load(text).task == known


ATTEMPT = "attempts:\n  deeper:\n    hypothesis: It helps.\n    expect: 0.01\n"

# what the user wrote; what he is told, after the path of the file
REFUSALS = [
    # keys
    (
        "sedes: 3",
        ", line 4: sedes is not a known key: did you mean seeds? Allowed: experiment, data, metric, ",
    ),
    ("zzz: 3", ", line 4: zzz is not a known key: Allowed: experiment, data, metric, seeds, baseline, "),
    (
        "baseline: {n_layer: 2}",
        ", line 4: baseline.n_layer is not a known key: did you mean n_layers? Allowed: model, n_layers, ",
    ),
    (
        ATTEMPT + "    n_layer: 2",
        ", line 8: attempts.deeper.n_layer is not a known key: did you mean n_layers? Allowed: hypothesis, ",
    ),
    (
        ATTEMPT + "    hypotesis: x",
        ", line 8: attempts.deeper.hypotesis is not a known key: did you mean hypothesis? ",
    ),
    (ATTEMPT + "    name: x", ", line 8: attempts.deeper.name is not a known key: "),
    (ATTEMPT + "    overrides: {lr: 1}", ", line 8: attempts.deeper.overrides is not a known key: "),
    ("seeds: 3\nseeds: 4", ", line 5: seeds is given twice, in lines 4 and 5: keep one."),
    (
        "baseline:\n  lr: 1\n  lr: 2",
        ", line 6: baseline.lr is given twice, in lines 5 and 6: keep one.",
    ),
    # baseline and hyperparameters
    (
        "baseline: {n_layers: 0}",
        ", line 4: baseline.n_layers=0 is not allowed: use 1 or more, or model: linear for no hidden layer.",
    ),
    (
        f"baseline: {{model: 'm{'x' * 80}:build'}}",
        "is not allowed: use 80 characters or fewer, since each record's name",
    ),
    ("baseline: {n_layers: 65}", "baseline.n_layers=65 is not allowed: use a whole number from 1 to 64."),
    ("baseline: {n_layers: 2.0}", "baseline.n_layers=2.0 is not allowed: use a whole number from 1 to 64."),
    ("baseline: {n_layers: true}", "baseline.n_layers=true is not allowed: use a whole number"),
    ("baseline: {width: 0}", "baseline.width=0 is not allowed: use a whole number from 1 to 65536."),
    ("baseline: {width: 65537}", "baseline.width=65537 is not allowed: use a whole number from 1 to 65536."),
    (
        "baseline: {act: leakyrelu}",
        "act='leakyrelu' is not allowed: use relu, leaky_relu, gelu, silu or tanh (did you mean leaky_relu?)",
    ),
    ("baseline: {dropout: 1.0}", "baseline.dropout=1.0 is not allowed: use a number from 0 to below 1."),
    ("baseline: {n_epochs: 0}", "baseline.n_epochs=0 is not allowed: use a whole number from 1 to 100000."),
    ("baseline: {batch_size: 0}", "baseline.batch_size=0 is not allowed: use a whole number from 1 to"),
    ("baseline: {lr: 0}", "baseline.lr=0 is not allowed: use a number above 0."),
    ("baseline: {lr: .inf}", "baseline.lr=inf is not allowed: use a number above 0."),
    ("baseline: {lr: .nan}", "baseline.lr=nan is not allowed: use a number above 0."),
    ("baseline: {lr: fast}", "baseline.lr='fast' is not allowed: use a number above 0."),
    ("baseline: {lr: }", "baseline.lr is empty: use a number above 0, or leave the key out."),
    ("baseline: {lr: [1]}", "baseline.lr=a list is not allowed: use a number above 0."),
    ("baseline: {weight_decay: -1}", "baseline.weight_decay=-1 is not allowed: use a number of 0 or more."),
    ("baseline: {schedule: step}", "baseline.schedule='step' is not allowed: use cosine, constant or one_cycle."),
    (
        "baseline: {patience: -1}",
        "baseline.patience=-1 is not allowed: use a whole number from 0 to 100000: ",
    ),
    (
        "baseline: {model: mpl}",
        "baseline.model='mpl' is not allowed: use majority, mean, linear, mlp, cnn, resnet, tabular or boosting, or "
        "package.module:callable for your own (did you mean mlp?).",
    ),
    (
        "baseline: {model: 'my-package:build'}",
        "baseline.model='my-package:build' is not allowed: use majority",
    ),
    ("baseline: {model: 3}", "in quotes if it is meant as text."),
    (
        "baseline: {model: mean}",
        "baseline.model='mean' is not allowed: use majority or linear, since this is a class",
    ),
    (
        "baseline: linear",
        "baseline='linear' is not allowed: use a mapping of hyperparameters, such as {model: linear}.",
    ),
    (
        "baseline:",
        "baseline is empty: use a mapping of hyperparameters, such as {model: linear}, or leave the key out.",
    ),
    (
        "baseline: {options: {depth: 3}}",
        "baseline.options has no effect with model: linear: use it with model: package.module:callable.",
    ),
    (
        "baseline: {model: 'a.b:c', options: {depth: [3]}}",
        "baseline.options.depth=a list is not allowed: use a finite number, true, false or a text.",
    ),
    (
        "baseline: {model: 'a.b:c', options: {depth: .nan}}",
        "baseline.options.depth=nan is not allowed: use a finite",
    ),
    (
        "baseline: {model: 'a.b:c', options: {depth: }}",
        "baseline.options.depth is empty: use a finite number",
    ),
    (
        "baseline: {model: 'a.b:c', options: {lr: 3}}",
        "baseline.options.lr is the name of a hyperparameter: give the",
    ),
    (
        "baseline: {model: 'a.b:c', options: {2d: 3}}",
        "baseline.options.2d is not allowed as a keyword: use letters",
    ),
    (
        "baseline: {model: 'a.b:c', options: {if: 3}}",
        "baseline.options.if is not allowed as a keyword: use letters",
    ),
    (
        "baseline: {model: 'a.b:c', options: [3]}",
        "baseline.options=a list is not allowed: use a mapping of keywords",
    ),
    # attempts
    (
        "attempts: {deeper: {expect: 1e-2}}",
        "attempts.deeper.hypothesis is missing: give a sentence of at most 2000 ",
    ),
    (
        "attempts: {deeper: {hypothesis: x}}",
        "attempts.deeper.expect is missing: give a number above 0: the smallest ",
    ),
    (
        "attempts: {deeper: {hypothesis: ' ', expect: 1e-2}}",
        "attempts.deeper.hypothesis='' is not allowed: use a sent",
    ),
    (f"attempts: {{a: {{hypothesis: {'x' * 2001}, expect: 1e-2}}}}", "attempts.a.hypothesis='xxxx"),
    (
        "attempts: {a: {hypothesis: x, expect: 0}}",
        "attempts.a.expect=0 is not allowed: use a number above 0: the ",
    ),
    (
        "attempts: {a: {hypothesis: x, expect: .inf}}",
        "attempts.a.expect=inf is not allowed: use a number above 0",
    ),
    (
        "attempts: {a: {hypothesis: x, expect: 2}}",
        "attempts.a.expect=2.0 is not allowed: use a gain below 1, such as ",
    ),
    (
        "attempts: {a: 3}",
        "attempts.a=3 is not allowed: use a mapping from each attempt's name to its hypothesis",
    ),
    (
        "attempts: {expect: 3}",
        "attempts.expect=3 is not allowed: use a mapping from each attempt's name to its hypothesis",
    ),
    ("attempts: [a]", "attempts=a list is not allowed: use a mapping from each attempt's name to"),
    (
        "attempts:\n  Deeper: {hypothesis: x, expect: 1e-2}",
        ", line 5: attempts.Deeper='Deeper' is not allowed: use a na",
    ),
    (
        "attempts:\n  baseline: {hypothesis: x, expect: 1e-2}",
        ", line 5: attempts.baseline is the name of the baseline: ",
    ),
    (ATTEMPT + "    lr: -1", ", line 8: attempts.deeper.lr=-1 is not allowed: use a number above 0."),
    (
        ATTEMPT + "    width: 64",
        ", line 8: attempts.deeper.width has no effect with model: linear: take it out, or ",
    ),
    (
        ATTEMPT + "    options: {a: 1}",
        ", line 8: attempts.deeper.options has no effect with model: linear: use it ",
    ),
    (
        ATTEMPT + "    model: mean",
        ", line 8: attempts.deeper.model='mean' is not allowed: use majority or linear",
    ),
    # seeds and sweep
    ("seeds: 1", "seeds=1 is not allowed: use a whole number from 2 to 100: the noise needs two runs."),
    ("seeds: 101", "seeds=101 is not allowed: use a whole number from 2 to 100"),
    ("sweep:", "sweep is empty: use a mapping with over, trials and method, or leave the key out."),
    (
        "sweep: {trials: 2, method: grid}",
        "sweep.over is missing: give a mapping of hyperparameters, such as {lr: ",
    ),
    (
        "sweep: {over: {lr: [1]}, method: grid}",
        "sweep.trials is missing: give a whole number from 1 to 100000.",
    ),
    (
        "sweep: {over: {lr: [1]}, trials: 0, method: grid}",
        "sweep.trials=0 is not allowed: use a whole number from 1 ",
    ),
    ("sweep: {over: {lr: [1]}, trials: 2}", "sweep.method is missing: give grid, random, tpe or halving."),
    (
        "sweep: {over: {lr: [1]}, trials: 2, method: gird}",
        "grid, random, tpe or halving (did you mean grid?).",
    ),
    (
        "sweep: {over: {}, trials: 2, method: grid}",
        "sweep.over=a mapping is not allowed: use a mapping of hyperparam",
    ),
    (
        "sweep: {over: {lrr: [1]}, trials: 2, method: grid}",
        "sweep.over.lrr is not a known key: did you mean lr?",
    ),
    ("sweep: {over: {options: [1]}, trials: 2, method: grid}", "sweep.over.options is not a known key: "),
    (
        "sweep: {over: {lr: []}, trials: 2, method: grid}",
        "sweep.over.lr needs a list of different values, or a range",
    ),
    (
        "sweep: {over: {lr: [1, 1]}, trials: 2, method: grid}",
        "sweep.over.lr needs a list of different values",
    ),
    (
        "sweep: {over: {lr: 1}, trials: 2, method: grid}",
        "sweep.over.lr=1 is not allowed: use a mapping of hyper",
    ),
    (
        "sweep: {over: {lr: [1, -1]}, trials: 2, method: grid}",
        "sweep.over.lr.1=-1 is not allowed: use a number above",
    ),
    (
        "sweep: {over: {lr: [2, 1, log]}, trials: 2, method: grid}",
        "sweep.over.lr=[2, 1, log] is not allowed: use [low",
    ),
    (
        "sweep: {over: {dropout: [0, 0.5, log]}, trials: 2, method: grid}",
        "sweep.over.dropout=[0, 0.5, log] is not al",
    ),
    (
        "sweep: {over: {act: [relu, 2]}, trials: 2, method: grid}",
        "sweep.over.act.1=2 is not allowed: use relu, ",
    ),
    (
        "sweep: {over: {width: [0.5, 2, linear]}, trials: 2, method: grid}",
        "sweep.over.width.0=0.5 is not allowed: use ",
    ),
    (
        "sweep: {over: {lr: [1e-3, 1e-1, log]}, trials: 2, method: grid}",
        "sweep.over.lr is a range, and a grid needs single values: list them.",
    ),
    (
        "sweep: {over: {lr: [1, 2, 3]}, trials: 2, method: grid}",
        "sweep.trials=2 is not allowed: use 3 for all combinations of the grid, or method: random.",
    ),
    (
        "sweep: {over: {n_epochs: [1, 2]}, trials: 2, method: halving}",
        "sweep.over.n_epochs cannot be searched with method: halving, which sets the epochs.",
    ),
    (
        "sweep: {model: boosting, over: {n_trees: [10, 20]}, trials: 2, method: halving}",
        "sweep.method=halving stops trainings after some epochs, and model: boosting has none: use random or tpe.",
    ),
    ("sweep: {over: {width: [1, 2]}, trials: 2, method: grid}", "sweep.over.width has no effect with model: linear"),
    (
        "sweep: {lr: 0.1, over: {lr: [1, 2]}, trials: 2, method: grid}",
        "sweep.lr is set and searched at once: keep one.",
    ),
    (
        "sweep: {trails: 3, over: {lr: [1, 2]}, trials: 2, method: grid}",
        "sweep.trails is not a known key: did you mean trials?",
    ),
    (
        "sweep: {start: deeper, over: {lr: [1, 2]}, trials: 2, method: grid}",
        "sweep.start='deeper' is not allowed: use nothing, for the file has no attempts.",
    ),
    (
        "sweep: {model: resnet, over: {n_layers: [9, 12]}, trials: 2, method: grid}",
        "sweep.over.n_layers=12 is not allowed with model: resnet: use 9 or 18.",
    ),
    (
        "sweep: {over: {lr: [1, 2]}, trials: 2, method: grid, budget: {}}",
        "sweep.budget takes one limit: use {epochs: 500} or {minutes: 30}.",
    ),
    (
        "sweep: {over: {lr: [1, 2]}, trials: 2, method: grid, budget: {epochs: 0}}",
        "sweep.budget.epochs=0 is not allowed: use a whole number of 1 or more.",
    ),
    (
        "sweep: {over: {lr: [1, 2]}, trials: 2, method: grid, expect: -1}",
        "sweep.expect=-1 is not allowed: use a number of 0 or more",
    ),
    (
        "attempts: {sweep: {hypothesis: H, expect: 0.1, lr: 1}}\nsweep: {over: {lr: [1, 2]}, trials: 2, method: grid}",
        "sweep would make the attempt sweep, and the file has one: give that another name.",
    ),
]


@pytest.mark.parametrize(("addition", "told"), REFUSALS, ids=lambda text: text[:40])
def test_wrong_addition_is_refused_with_one_sentence(load, addition, told):
    message = refusal(load, SMALL + addition + "\n")
    assert told in message
    assert message.startswith(", line ")
    assert len(message.splitlines()) == 1


DATA = "data: {source: rows.csv, target: y}"
REPLACEMENTS = [
    ("experiment: small", "", ", line 2: experiment is missing: give a name of 1 to 63 of a-z, 0-9, _ and -"),
    (
        "small",
        "Small",
        ", line 1: experiment='Small' is not allowed: use a name of 1 to 63 of a-z, 0-9, _ and -",
    ),
    (
        "small",
        "10",
        "experiment=10 is not allowed: use a name of 1 to 63 of a-z, 0-9, _ and -, beginning with a letter",
    ),
    ("small", "x" * 64, "experiment='xxxxx"),
    ("small", '"small\\n"', r"experiment='small\n' is not allowed"),
    (DATA, "", ", line 1: data is missing: give a mapping with source and target."),
    (DATA, "data: 3", ", line 2: data=3 is not allowed: use a mapping with source and target."),
    (DATA, "data: {target: y}", ", line 2: data.source is missing: give a path, a URL or a bundled data set"),
    (
        DATA,
        "data: {source: a.csv}",
        ", line 2: data.target is missing: give the name of the column to predict.",
    ),
    ("rows.csv", "''", "data.source='' is not allowed: use a path"),
    (
        "target: y",
        "target: 7",
        "data.target=7 is not allowed: use the name of the column to predict, in quotes if",
    ),
    ("target: y", "target: ", "data.target is empty: use the name of the column to predict."),
    (
        "target: y",
        "target: y, task: regresion",
        "data.task='regresion' is not allowed: use auto, classification or ",
    ),
    (
        "target: y",
        "target: y, drop: id",
        "data.drop='id' is not allowed: use a list of different column names",
    ),
    (
        "target: y",
        "target: y, drop: [3]",
        "data.drop.0=3 is not allowed: use a list of different column names",
    ),
    ("target: y", "target: y, drop: [a, a]", "data.drop names 'a' twice: keep one."),
    ("target: y", "target: y, drop: [y]", "data.drop holds the target 'y': take it out."),
    (
        "target: y",
        "target: y, reading: {on_bad_row: skip}",
        "data.reading.on_bad_row='skip' is not allowed: use refuse",
    ),
    ("target: y", "target: y, reading: {types: {a: int}}", "data.reading.types.a='int' is not allowed: use"),
    ("target: y", "target: y, reading: {delimiter: ' '}", "data.reading.delimiter=' ' is not allowed: use one of"),
    ("target: y", "target: y, rare: -1", "data.rare=-1 is not allowed: use a whole number of 0 or more"),
    ("target: y", "target: y, split: {group: y}", "data.split.group='y' is the target: use another column"),
    (
        "target: y",
        "target: y, split: {test: 0}",
        "data.split.test=0 is not allowed: use a share above 0 and at most ",
    ),
    ("target: y", "target: y, split: {tset: 0.1}", "data.split.tset is not a known key: did you mean test?"),
    (
        "target: y",
        "target: y, split: {validation: 0.5, test: 0.4}",
        " takes 0.5 and 0.4 for validation and test: use at most 0.8 together, the rest is for training.",
    ),
    ("metric: {name: accuracy}", "", ", line 1: metric is missing: give a mapping such as {name: accuracy}."),
    (
        "{name: accuracy}",
        "accuracy",
        "metric='accuracy' is not allowed: use a mapping such as {name: accuracy}.",
    ),
    (
        "{name: accuracy}",
        "{}",
        "metric.name is missing: give accuracy, balanced_accuracy, f1, auc, loss, rmse, mae ",
    ),
    (
        "accuracy",
        "acuracy",
        ", line 3: metric.name='acuracy' is not allowed: use accuracy, balanced_accuracy, f1, ",
    ),
    ("accuracy", "acuracy", "(did you mean accuracy?)."),
    (
        "accuracy",
        "accuracy, goal: minimize",
        "metric.goal='minimize' is not allowed: use maximize with accuracy, or leave the key out.",
    ),
    ("accuracy", "accuracy, goal: [up]", "metric.goal=a list is not allowed: use maximize with accuracy"),
]


@pytest.mark.parametrize(("old", "new", "told"), REPLACEMENTS, ids=lambda text: text[:40])
def test_wrong_section_is_refused_with_one_sentence(load, old, new, told):
    message = refusal(load, SMALL.replace(old, new))
    assert told in message
    assert message.startswith(", line ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("task", "metric", "told"),
    [
        (
            "classification",
            "rmse",
            "metric.name='rmse' is not allowed: use accuracy, balanced_accuracy, f1, auc or loss ",
        ),
        (
            "regression",
            "auc",
            "metric.name='auc' is not allowed: use rmse, mae, r2 or loss with data.task: regression.",
        ),
    ],
)
def test_metric_of_other_task_is_refused(load, task, metric, told):
    text = SMALL.replace("target: y", f"target: y, task: {task}").replace("accuracy", metric)
    assert told in refusal(load, text)


def test_majority_for_regression_is_refused(load):
    message = refusal(load, SMALL.replace("accuracy", "mae") + "baseline: {model: majority}\n")
    assert "baseline.model='majority' is not allowed: use mean or linear, since this is a regression." in message


# bytes of a whole file; what the user is told after its path
BROKEN = [
    (b"", ", line 1: the file is empty: write keys such as experiment, data and metric."),
    (b"# only a comment\n", ", line 1: the file is empty: write keys"),
    (b"- a\n- b\n", ", line 1: the file holds a list: write keys"),
    (b"hello", ", line 1: the file holds 'hello': write keys"),
    (b"a: 1\n\tb: 2\n", ", line 2: a tab cannot indent in YAML: use spaces."),
    (b"a: [1,\nb: 2\n", "this is not YAML: "),
    (b"a: 'open\n", "this is not YAML: found unexpected end of stream"),
    (b"a: 1\nb: \xff\n", ", line 2: byte 0xff is not UTF-8: save the file as UTF-8."),
    ("a: 1".encode("utf-16"), ", line 1: byte 0xff is not UTF-8"),
    (b"a: 1\nb: \x00\n", ", line 2: the character U+0000 is not allowed in YAML: take it out."),
    (b"a: &x 1\nb: *x\n", ", line 2: an alias (*) is not allowed: write the value out."),
    (b"a: &x [*x]\n", ", line 1: an alias (*) is not allowed"),
    (
        b"a: !!python/object:os.system x\n",
        ", line 1: the tag tag:yaml.org,2002:python/object:os.system is not allowed",
    ),
    (b"a: !mine {b: 1}\n", ", line 1: the tag !mine is not allowed: take it out."),
    (b"a: !!int x\n", ", line 1: 'x' is not allowed as int: write a plain value."),
    (b"a: " + b"9" * 5000, ", line 1: '99999"),
    (b'a: "\\ud800"\n', ", line 1: half of a surrogate pair is not allowed: write the character itself."),
    (b'a: "\\UFFFFFFFF"\n', " is not YAML: "),
    (b"? [a, b]\n: 1\n", ", line 1: a list or mapping is not allowed as a key: use a word."),
    (b"a: 1\n---\nb: 1\n", ", line 2: this is not YAML: but found another document"),
    (b"[" * 5000, ", line 1: more than 20 levels are not allowed: nest less."),
    (b"a: 1\n" * 300_000, " is larger than 1 MiB: an experiment file is a page of text, not data."),
]


@pytest.mark.parametrize(("content", "told"), BROKEN, ids=lambda part: repr(part[:25]))
def test_broken_file_is_refused_with_one_sentence(load, content, told):
    message = refusal(load, content)
    assert message.startswith(told) or told in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.yaml", "missing.yaml does not exist: give the path of an experiment file."),
        (".", "cannot be read (Is a directory): give the path of an experiment file."),
        ("a\0b", "cannot be read (embedded null byte): give the path of an experiment file."),
        ("x" * 300, "cannot be read (File name too long): give the path of an experiment file."),
    ],
)
def test_unreadable_path_is_refused(tmp_path, name, told):
    with pytest.raises(InputError) as caught:
        load_experiment(f"{tmp_path}/{name}")
    assert told in str(caught.value)


def test_all_problems_are_told_in_order_of_lines(load):
    text = SMALL.replace("accuracy", "acuracy") + "seeds: 1\nbaseline: {lr: 0, widht: 3}\nextra: 1\nseeds: 2\n"
    lines = refusal(load, text).splitlines()
    starts = [
        ", line 3: metric",
        ", line 4: seeds=1",
        ", line 5: base",
        ", line 5: base",
        ", line 6: ex",
        ", line 7: seeds",
    ]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_problems_beyond_ten_are_counted(load):
    lines = refusal(load, SMALL + "".join(f"extra{i}: 1\n" for i in range(14))).splitlines()
    assert len(lines) == 11
    assert lines[-1] == "and 4 more."


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3E5", 3e5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("007", 7),
        ("0x1F", 31),
        ("0o17", 15),
        ("-12", -12),
        ("-.inf", float("-inf")),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
    ],
)
def test_scalar_is_read_as_yaml_1_2(tmp_path, text, value):
    (tmp_path / "e.yaml").write_text(f"a: {text}\n")
    read = read_yaml(tmp_path / "e.yaml").value["a"]
    assert (read, type(read)) == (value, type(value))


def test_byte_order_mark_is_skipped(load):
    assert load(b"\xef\xbb\xbf" + SMALL.encode()).experiment == "small"


def test_attempt_is_baseline_with_overrides(load):
    experiment = load(SMALL + "baseline: {model: mlp, width: 32, lr: 1e-2}\n" + ATTEMPT + "    width: 64\n")
    expected = Hyperparameters(model="mlp", width=64, lr=1e-2)
    assert experiment.hyperparameters("deeper") == expected


def test_unknown_attempt_is_refused_with_nearest_name(load):
    with pytest.raises(InputError, match=r"'deepr' is not an attempt of small: did you mean deeper\? use deeper\."):
        load(SMALL + ATTEMPT).hyperparameters("deepr")
    with pytest.raises(InputError, match=r"'deepr' is not an attempt of small: add it to the file first\."):
        load(SMALL).hyperparameters("deepr")


def test_options_are_merged_while_model_stays():
    base = {"model": "a.b:c", "options": {"depth": 3, "bias": True}}
    assert override(base, {"options": {"depth": 4}})["options"] == {"depth": 4, "bias": True}
    assert override(base, {"model": "mlp"})["options"] == {}
    assert override(base, {"model": "a.b:d", "options": {"k": 1}})["options"] == {"k": 1}


TRAINING = ["n_epochs", "batch_size", "lr", "weight_decay", "schedule", "patience"]


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"model": "majority"}, ["model"]),
        ({"model": "mean"}, ["model"]),
        ({"model": "linear"}, ["model", *TRAINING]),
        ({"model": "mlp"}, ["model", "n_layers", "width", "act", "dropout", *TRAINING]),
        ({"model": "cnn"}, ["model", "n_layers", "width", "act", "dropout", *TRAINING]),
        ({"model": "a.b:c", "options": {"depth": 3}}, ["model", *TRAINING, "depth"]),
    ],
)
def test_effective_holds_what_matters_in_order(settings, keys):
    assert list(Hyperparameters(**settings).effective()) == keys


def test_options_keep_their_types():
    options = {"a": 1, "b": 1.0, "c": True, "d": "1"}
    kept = Hyperparameters(model="a.b:c", options=options).effective()
    assert [type(kept[key]) for key in options] == [int, float, bool, str]


def test_from_mapping_tells_every_problem():
    with pytest.raises(InputError) as caught:
        Hyperparameters.from_mapping({"n_layers": 0, "lrr": 1})
    assert str(caught.value).splitlines() == [
        "n_layers=0 is not allowed: use 1 or more, or model: linear for no hidden layer.",
        "lrr is not a known key: did you mean lr? Allowed: " + ", ".join(Hyperparameters.model_fields) + ".",
    ]


def test_experiment_is_frozen(load):
    with pytest.raises(ValidationError, match="frozen"):
        load(SMALL).seeds = 4


def test_import_needs_no_heavy_package():
    heavy = "{'torch', 'kfp', 'numpy', 'polars', 'sklearn', 'scipy'}"
    code = f"import sys, basekamp.experiment; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True).filter(lambda name: name != "baseline")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
OWN = "my_package.models:build"
LAYERS = {
    "n_layers": st.integers(1, 64),
    "width": st.integers(1, 65536),
    "act": st.sampled_from(["relu", "leaky_relu", "gelu", "silu", "tanh"]),
    "dropout": st.floats(0, 1, exclude_max=True),
}
TRAINED = {
    "n_epochs": st.integers(1, 100_000),
    "batch_size": st.integers(1, 1 << 24),
    "lr": st.floats(0, exclude_min=True, allow_infinity=False),
    "weight_decay": st.floats(0, allow_infinity=False),
    "schedule": st.sampled_from(["cosine", "constant"]),
    "patience": st.integers(0, 100_000),
}
OPTIONS = st.dictionaries(
    st.sampled_from(["depth", "bias", "größe"]),
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | TEXT,
)
OVERRIDES = st.one_of(
    st.fixed_dictionaries({"model": st.sampled_from(["mlp", "cnn"])}, optional=LAYERS | TRAINED),
    st.fixed_dictionaries({"model": st.just("linear")}, optional=TRAINED),
    st.fixed_dictionaries({"model": st.just(OWN)}, optional={**TRAINED, "options": OPTIONS}),
)
IDEA = st.fixed_dictionaries(
    {"hypothesis": TEXT.filter(str.strip), "expect": st.floats(0, 1, exclude_min=True, exclude_max=True)}
)


@st.composite
def documents(draw):
    """A valid experiment as the plain values of its file."""
    columns = draw(st.lists(TEXT, min_size=2, max_size=5, unique=True))
    shares = st.floats(0, 0.4, exclude_min=True)
    split = {"validation": draw(shares), "test": draw(shares), "group": columns[1]}
    ideas = draw(st.dictionaries(NAMES, st.tuples(IDEA, OVERRIDES), max_size=3))
    sweep = {"model": "mlp", "over": {"lr": [1e-4, 3e-2, "log"], "width": [64, 128]}, "trials": 3, "method": "tpe"}
    return {
        "experiment": draw(NAMES),
        "data": {"source": draw(TEXT), "target": columns[0], "drop": columns[1:], "split": split},
        "metric": {"name": draw(st.sampled_from(sorted(METRICS)))},
        "seeds": draw(st.integers(2, 100)),
        "baseline": draw(OVERRIDES),
        "attempts": {name: idea | overrides for name, (idea, overrides) in ideas.items()},
    } | draw(st.sampled_from([{}, {"sweep": sweep}]))


class QuotingDumper(yaml.SafeDumper):
    """Quotes every text: bare, the text 1e-4 is a number in YAML 1.2, which SafeDumper does not know."""


QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents())
def test_dumped_experiment_loads_equal(load, document):
    loaded = load(yaml.dump(document, Dumper=QuotingDumper, sort_keys=False))
    assert loaded == Experiment.model_validate(document)
    assert loaded.baseline == document["baseline"]
    for name, attempt in loaded.attempts.items():
        written = document["attempts"][name]
        assert attempt.hypothesis == written["hypothesis"].strip()
        assert {**attempt.overrides, "expect": attempt.expect} == {k: written[k] for k in written if k != "hypothesis"}
        assert loaded.hyperparameters(name).model in (*MODELS, OWN)


PIECES = st.sampled_from(
    [
        *DESIGN.split(),
        *"-:{}[],&*!|>%@`'\"#?~\t\n\r",
        "\n  ",
        ": ",
        "- ",
        "<<",
        "!!set",
        "---",
        "...",
        "\\U0011FFFF",
        "1e-4",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=60)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
    | st.lists(PIECES, max_size=40).map("".join)
    | st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT, st.lists).map(
        lambda value: SMALL + yaml.safe_dump({"attempts": {"a": value}, "sweep": {"over": {"lr": value}}})
    )
)
def test_any_content_loads_or_is_refused(load, content):
    try:
        load(content)
    except InputError as error:
        assert 1 <= len(str(error).splitlines()) <= 11


def test_resnet_may_take_its_layers_from_the_baseline(load):
    text = (
        SMALL + "baseline: {model: resnet, n_layers: 9}\nattempts: {a: {hypothesis: H, expect: 0.1, model: resnet}}\n"
    )
    assert load(text).hyperparameters("a").n_layers == 9
