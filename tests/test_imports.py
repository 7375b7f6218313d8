"""Old results: what is read from where, what is refused, and that they are listed and nothing more."""

import json
import math
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from basekamp.cli import main
from basekamp.errors import InputError, StoreError
from basekamp.imports.result import Found, Reading, read_result, typed
from basekamp.imports.shelf import Imported, import_results
from basekamp.imports.sources import read_csv, read_folder, read_source
from basekamp.naming import MAX_BYTES
from basekamp.records.leaderboard import best_first
from basekamp.records.shelf import find_row, read_shelf
from basekamp.report.leaderboard import rows_as_json
from basekamp.storage import open_store
from basekamp.storage.folder import FolderStore

ACCURACY = Reading("accuracy")
TABLE = """attempt,model,lr,width,accuracy,loss
first,mlp,0.1,64,0.91,0.3
second,mlp,1e-3,,0.95,0.2
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "old.csv").write_text(TABLE)
    return tmp_path / "old.csv"


@pytest.fixture
def store(tmp_path: Path):
    return open_store(str(tmp_path / "store"))


def bring(store, found, **changes):
    return import_results(store, found, **{"experiment": "old", "source": "test", "reading": ACCURACY} | changes)


def command(tmp_path: Path, *arguments: object) -> Result:
    asked = ["import", *map(str, arguments), "--experiment", "old", "--metric", "accuracy"]
    return CliRunner().invoke(main, [*asked, "--store", str(tmp_path / "store")])


# -- values


@pytest.mark.parametrize(
    ("given", "value"),
    [("3", 3), ("1e-3", 0.001), ("True", True), (" x ", "x"), ("", None), (None, None), (2.5, 2.5), (False, False)],
)
def test_cells_get_their_types(given, value):
    assert typed(given) == value and type(typed(given)) is type(value)


@pytest.mark.parametrize(
    ("values", "reading", "sentence"),
    [
        ({"lr": 1}, ACCURACY, "accuracy is missing: name it by --map theirs=accuracy"),
        ({"accuracy": "high"}, ACCURACY, "accuracy='high' is no finite number"),
        ({"accuracy": "nan"}, ACCURACY, "accuracy=nan is no finite number"),
        ({"accuracy": 98.1}, ACCURACY, "accuracy=98.1 is not between 0 and 1: give --percent where shares are in"),
        ({"accuracy": 981}, Reading("accuracy", in_percent=True), "it is no share, even in per cent"),
        ({"accuracy": 0.5, "acc": 0.5}, Reading("accuracy", {"acc": "accuracy"}), "accuracy is given twice, as acc"),
    ],
)
def test_result_that_cannot_be_listed_says_why(values, reading, sentence):
    with pytest.raises(InputError) as told:
        read_result(Found("row", "", values), reading)
    assert sentence in str(told.value)


def test_percent_and_other_names_are_read_as_ours():
    reading = Reading("accuracy", {"val_acc": "accuracy", "net": "model", "run": "attempt"}, in_percent=True)
    values = {"val_acc": "98.1", "net": "cnn", "run": "a 1", "loss": 2.0}
    result = read_result(Found("row", "", values), reading)
    assert (result.metrics, result.params, result.attempt) == (
        {"accuracy": 0.981, "loss": 2.0},
        {"model": "cnn"},
        "a 1",
    )


def test_unknown_metric_is_refused():
    with pytest.raises(InputError, match=r"^metric='top1' is not allowed: use .*, and --map theirs=ours\.$"):
        Reading("top1")


# -- the leaderboard


def test_imported_results_are_listed_and_marked_and_neither_baseline_nor_champion(store, table):
    outcome = bring(store, read_csv(table))
    shelf = read_shelf(store, "old")
    assert len(outcome.imported) == 2 and (outcome.num_known, outcome.left_out) == (0, ())
    assert (shelf.rows, shelf.baseline, shelf.champion, shelf.strangers) == ((), None, None, ())
    assert shelf.judged_before({"model": "mlp", "lr": 0.1, "width": 64}, 3) == 0
    best, other = best_first(shelf.imported)
    assert (best.role, best.attempt, best.metric, best.value) == ("imported", "second", "accuracy", 0.95)
    assert (best.verdict, best.difference, best.n, best.champion) == (None, None, 1, False) and math.isnan(best.spread)
    assert other.params == {"model": "mlp", "lr": 0.1, "width": 64} and other.metrics == {"loss": 0.3, "accuracy": 0.91}
    assert [row["spread"] for row in rows_as_json(shelf.imported)] == [None, None]


def test_json_beside_tells_everything_and_where_it_comes_from(store):
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    values = {"accuracy": 0.5, "note": "ö" * 300, "not a key": 1, "from": "somewhere"}
    bring(store, [Found("run 7", "id-7", values, "seven", when, {"user": "me"})])
    (row,) = read_shelf(store, "old").imported
    told = Imported.model_validate_json(store.get(row.key))
    assert len(row.name) <= MAX_BYTES and row.cut == 3 and row.params == {"model": "unknown"}
    assert told.params == {"model": "unknown", "note": "ö" * 300, "not a key": 1, "from": "somewhere"}
    assert (told.role, told.original, told.created, told.source) == ("imported", "id-7", when, "test")
    assert told.told == {"user": "me", "place": "run 7"}


def test_import_twice_changes_nothing_and_a_longer_table_adds_its_rows(store, table, tmp_path):
    bring(store, read_csv(table))
    before = [entry.key for entry in store.entries()]
    assert bring(store, read_csv(table)).num_known == 2
    assert [entry.key for entry in store.entries()] == before
    table.write_text(TABLE.replace("second", "third,mlp,0.5,8,0.5,1\nsecond"))
    again = bring(store, read_csv(table))
    assert (len(again.imported), again.num_known) == (1, 2)
    assert sorted(row.attempt for row in read_shelf(store, "old").imported) == ["first", "second", "third"]


def test_equal_rows_are_each_a_result(store, table):
    table.write_text(TABLE + TABLE.splitlines()[1] + "\n")
    for _ in range(2):
        bring(store, read_csv(table))
    assert len(read_shelf(store, "old").imported) == 3


@pytest.mark.parametrize("puts", range(3))
def test_import_cut_off_leaves_the_leaderboard_as_before_and_is_completed_by_the_next(store, table, monkeypatch, puts):
    put, left = FolderStore.put, [puts]

    def failing(self, key, source):
        if not left[0]:
            raise StoreError("killed")
        left[0] -= 1
        put(self, key, source)

    monkeypatch.setattr(FolderStore, "put", failing)
    with pytest.raises(StoreError):
        bring(store, read_csv(table))
    assert read_shelf(store, "old").imported == () == read_shelf(store, "old").strangers
    monkeypatch.setattr(FolderStore, "put", put)
    bring(store, read_csv(table))
    assert len(read_shelf(store, "old").imported) == 2
    assert len(list(store.entries())) == 3


def test_bad_rows_are_counted_and_named(tmp_path, table):
    table.write_text(TABLE + "third,mlp,0.1,64,,0.3\nfourth,mlp,0.1,64,98,0.3,7\nfifth,mlp,0.1,64,98,0.3\n")
    done = command(tmp_path, "csv", table)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "2 imported, 0 there already, 3 left out."
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [f"old.csv, line {n}" for n in (4, 5, 6)]


def test_command_line_lists_shows_and_never_falls_back_to_an_imported_result(tmp_path, table):
    done = command(tmp_path, "csv", table)
    assert done.exit_code == 0, done.output
    place = ("--store", str(tmp_path / "store"))
    listed = CliRunner().invoke(main, ["runs", *place])
    assert listed.exit_code == 0 and listed.stdout.count("imported") == 2
    row = find_row(open_store(str(tmp_path / "store")), json.loads(_json(["runs", *place, "--json"]))[0]["name"])
    assert json.loads(_json(["show", row.id, "--json", *place]))["role"] == "imported"
    refused = CliRunner().invoke(main, ["fallback", "old", "--to", row.id, *place])
    assert refused.exit_code == 2 and "is imported, and only a record can be champion" in refused.stderr
    assert CliRunner().invoke(main, ["runs", *place, "--csv"]).stdout.count("imported") == 4


def _json(arguments: list[str]) -> str:
    return CliRunner().invoke(main, arguments).stdout


# -- sources


def test_folder_of_foreign_names_is_read(tmp_path, store):
    folder = tmp_path / "models"
    (folder / "below").mkdir(parents=True)
    (folder / "model.n_layers-10.n_epochs-100.act-leaky_relu.loss-0.03.accuracy-98.1.pth").touch()
    (folder / "below" / "cnn.act_func-relu.acc-97.pt").touch()
    (folder / "notes.txt").touch()
    (folder / ".hidden.accuracy-1.pth").touch()
    reading = Reading("accuracy", {"acc": "accuracy", "act_func": "act"}, in_percent=True)
    outcome = bring(store, read_folder(folder), reading=reading)
    assert outcome.left_out == ("notes.txt: accuracy is missing: name it by --map theirs=accuracy.",)
    ten, cnn = best_first(read_shelf(store, "old").imported)
    assert ten.params == {"model": "model", "n_layers": 10, "n_epochs": 100, "act": "leaky_relu"}
    assert ten.metrics == {"loss": 0.03, "accuracy": 0.981} and cnn.params == {"model": "cnn", "act": "relu"}
    assert Imported.model_validate_json(store.get(cnn.key)).told["file"] == "below/cnn.act_func-relu.acc-97.pt"


@pytest.mark.skipif(find_spec("openpyxl") is None, reason="openpyxl is not installed")
def test_workbook_gives_what_its_table_gives(tmp_path, table, store):
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["attempt", "model", "lr", "width", "accuracy", "loss"])
    book.active.append(["first", "mlp", 0.1, 64, 0.91, 0.3])
    book.active.append([None] * 6)
    book.active.append(["second", "mlp", 1e-3, None, 0.95, 0.2])
    book.create_sheet("other").append(["accuracy"])
    book.save(tmp_path / "old.xlsx")
    bring(store, read_csv(table))
    found, source = read_source("xlsx", str(tmp_path / "old.xlsx"))
    assert source == "xlsx:old.xlsx" and bring(store, found).num_known == 2
    assert bring(store, read_source("xlsx", str(tmp_path / "old.xlsx"), "other")[0]).imported == ()
    with pytest.raises(InputError, match="has no sheet 'third': use one of Sheet, other"):
        bring(store, read_source("xlsx", str(tmp_path / "old.xlsx"), "third")[0])


@pytest.mark.parametrize(
    ("kind", "place", "sentence"),
    [
        ("csv", "absent.csv", "absent.csv cannot be read (No such file or directory)"),
        ("csv", ".", ". cannot be read (Is a directory)"),
        ("folder", "absent", "absent is no folder"),
        ("mlflow", "http://localhost", "write `basekamp import mlflow URI EXPERIMENT"),
    ],
)
def test_source_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch, kind, place, sentence):
    monkeypatch.chdir(tmp_path)
    done = command(tmp_path, kind, place)
    assert done.exit_code == 2 and sentence in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(find_spec("openpyxl") is None, reason="openpyxl is not installed")
def test_file_that_is_no_workbook_is_one_sentence(tmp_path, table):
    done = command(tmp_path, "xlsx", table)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and "cannot be read" in done.stderr
    assert command(tmp_path, "csv", table, "more").stderr.startswith("basekamp: more is one word too many")


@pytest.mark.parametrize(("kind", "package"), [("xlsx", "openpyxl"), ("mlflow", "mlflow"), ("wandb", "wandb")])
def test_missing_package_is_one_sentence(tmp_path, table, monkeypatch, kind, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    done = command(tmp_path, kind, table, *(["theirs"] if kind == "mlflow" else []))
    assert done.exit_code == 2 and f"pip install 'basekamp[{kind}]'" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_offline_runs_are_read_and_a_damaged_one_is_named(tmp_path, store, monkeypatch):
    import subprocess
    import sys

    program = (
        "import wandb\n"
        "for lr in (0.1, 0.2):\n"
        "    run = wandb.init(project='p', name=f'lr {lr}', config={'lr': lr, 'net': {'depth': 2}})\n"
        "    run.log({'accuracy': lr}); run.log({'accuracy': lr + 0.5}); run.finish()\n"
    )
    for name in ("WANDB_API_KEY", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    damaged = min(tmp_path.rglob("run-*.wandb"))
    for _ in range(2):
        outcome = bring(store, read_source("wandb", str(tmp_path / "wandb"))[0])
    assert outcome.num_known == 2 and outcome.left_out == ()
    best, other = best_first(read_shelf(store, "old").imported)
    assert (best.attempt, best.value, best.params["lr"]) == ("lr 0.2", 0.7, 0.2) and other.value == 0.6
    damaged.write_bytes(b"nonsense")
    outcome = bring(store, read_source("wandb", str(tmp_path / "wandb"))[0])
    assert outcome.num_known == 1 and "its .wandb file is damaged" in outcome.left_out[0]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")
def test_mlflow_runs_are_read_page_by_page(tmp_path, store, monkeypatch):
    from basekamp.imports import sources
    from tests.mlflow_server import MlflowServer, can_serve

    if not can_serve():
        pytest.skip("no MLflow server: let MLFLOW_PYTHON name an interpreter that has one")
    from mlflow import MlflowClient

    monkeypatch.setattr(sources, "PAGE", 2)
    server = MlflowServer(tmp_path)
    try:
        client = MlflowClient(server.start().url)
        experiment = client.create_experiment("theirs")
        for number in range(5):
            run = client.create_run(experiment, run_name=f"run-{number}").info.run_id
            client.log_param(run, "lr", 0.1 * number)
            if number < 4:
                client.log_metric(run, "val_acc", 0.5, step=0)
                client.log_metric(run, "gradient", 7.0)
                client.log_metric(run, "val_acc", 0.5 + number / 10, step=1)
        reading = Reading("accuracy", {"val_acc": "accuracy"})
        outcome = bring(store, read_source("mlflow", server.url, "theirs")[0], reading=reading)
        assert outcome.left_out == ("run run-4: accuracy is missing: name it by --map theirs=accuracy.",)
        best = best_first(read_shelf(store, "old").imported)[0]
        assert (best.attempt, best.value) == ("run-3", 0.8) and best.params["lr"] == pytest.approx(0.3)
        assert set(best.params) == {"model", "lr"}
        assert Imported.model_validate_json(store.get(best.key)).told["gradient"] == "7.0"
        assert bring(store, read_source("mlflow", server.url, "theirs")[0], reading=reading).num_known == 4
        with pytest.raises(InputError, match="has no experiment 'ours'"):
            bring(store, read_source("mlflow", server.url, "ours")[0])
    finally:
        server.kill()


def runs(place: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["runs", str(place), *options])


@pytest.fixture
def named_files(tmp_path):
    """A folder of files in the habit of the book, some in that of nobody."""
    folder = tmp_path / "models"
    folder.mkdir()
    for name in (
        "model.n_layers-10.n_epochs-100.act-leaky_relu.loss-0.0312.accuracy-98.1.pth",
        "model.n_layers-10.n_epochs-100.act-leaky_relu.loss-0.0312.accuracy-98.1.json",
        "model.n_layers-4.n_epochs-100.act-relu.loss-0.05.accuracy-97.2.pth",
        "model.n_layers-2.loss-nan.pth",
        "notes.txt",
        "no name",
    ):
        (folder / name).touch()
    (folder / ".hidden.accuracy-1.pth").touch()
    return folder


def test_folder_of_named_files_is_listed_where_it_lies(tmp_path, named_files):
    done = runs(named_files, "--json")
    assert "NaN" not in done.stdout
    first, second, third = json.loads(done.stdout)
    assert (first["role"], first["experiment"], first["n"], first["spread"]) == ("imported", "models", 1, None)
    assert first["params"] == {"model": "model", "n_layers": 10, "n_epochs": 100, "act": "leaky_relu"}
    assert (first["metrics"], third["metrics"]) == ({"loss": 0.0312, "accuracy": 98.1}, {"loss": None})
    assert second["metrics"]["accuracy"] == 97.2 and first["verdict"] is None
    assert done.stderr == "2 files are no records' names: no name, notes.txt\n"
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_named_files_are_chosen_by_conditions_and_told_how_to_become_results(tmp_path, named_files):
    done = runs(named_files, "--where", "n_layers>=4 and act=relu")
    assert done.exit_code == 0 and "97.2" in done.stdout and "98.1" not in done.stdout
    assert f"Next: basekamp import folder {named_files} --experiment models --metric accuracy" in done.stdout


def test_folder_without_named_files_lists_nothing(tmp_path):
    (tmp_path / "notes.txt").touch()
    assert "No record" in runs(tmp_path).stdout
