"""Records in a store: what a comparison leaves there, and what the listing tells."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basekamp.data.dataset import load_dataset
from basekamp.data.prepare import prepare_data
from basekamp.errors import InputError, StoreError
from basekamp.evaluation.evaluate import evaluate_model
from basekamp.evaluation.ladder import measure_ladder
from basekamp.experiment import DataSettings, Split
from basekamp.naming import MAX_BYTES, Name, id_time, new_id, parse_name
from basekamp.records.compare import Question
from basekamp.records.gate import fall_back
from basekamp.records.record import differing, file_name, significant
from basekamp.records.shelf import (
    Row,
    Shelf,
    find_row,
    read_record,
    read_shelf,
    read_shelves,
    stem,
)
from basekamp.report.leaderboard import rows_as_json
from basekamp.storage.folder import FolderStore
from basekamp.training.model_file import load_models
from tests.camp import RECIPES, Camp, Clock, forget, learn

pytestmark = pytest.mark.usefixtures("clock")


FILES = [".html", ".json", ".npz", ".pth"]


def test_the_climb_is_as_the_tests_below_take_it(climbed_once):
    told = [(row.attempt, row.role, row.verdict) for row in climbed_once.shelf.rows]
    assert told == [
        ("baseline", "baseline", None),
        ("slower", "attempt", "refuted"),
        ("faster", "attempt", "supported"),
        ("deep", "attempt", "supported"),
    ]


def test_each_record_is_four_files_of_one_stem_that_fit_a_file_name(climbed_once):
    for row in climbed_once.shelf.rows:
        folder = row.key.rpartition("/")[0]
        keys = climbed_once.keys_below(folder + "/")
        assert keys == [stem(row.key) + extension for extension in FILES]
        assert max(len(key.rpartition("/")[2].encode()) for key in keys) <= MAX_BYTES
        assert folder in ("digits/baseline", f"digits/attempts/{row.attempt}")
        assert (climbed_once.folder / f"{row.attempt}.html").read_bytes() == climbed_once.store.get(row.beside(".html"))


def test_the_json_is_written_last(camp, monkeypatch):
    put, written = FolderStore.put, []
    monkeypatch.setattr(FolderStore, "put", lambda self, key, source: (written.append(key), put(self, key, source)))
    camp.compare("baseline")
    camp.compare("faster")
    kinds = [key.split("/")[1] + key[-5:].replace(".json", "").rpartition(".")[0] for key in written]
    assert [key.rpartition(".")[2] for key in written[:4]] == ["npz", "pth", "html", "json"]
    assert [kind for kind in kinds if kind in ("openings", "promotions")] == ["openings", "promotions"]
    assert written[-1].startswith("digits/attempts/faster/") and written[-1].endswith(".json")


def test_listing_alone_tells_what_the_json_tells(climbed_once):
    for row in climbed_once.shelf.rows:
        record = read_record(climbed_once.store, row)
        assert (row.id, row.name, row.key, row.role) == (record.id, record.name, record.key, record.role)
        assert row.params == record.params and list(row.params) == list(record.params) and row.cut == 0
        assert row.metrics == {key: significant(record.evaluation.metrics[key]) for key in ("loss", "accuracy")}
        assert (row.metric, row.n, row.verdict) == ("accuracy", len(record.evaluation.replicates), record.verdict)
        assert row.value == pytest.approx(record.mean, rel=1e-4)
        assert row.spread == significant(record.evaluation.spread["accuracy"], 3)
        if record.comparison is None:
            assert row.difference is row.interval is None
        else:
            assert row.difference == significant(record.comparison.difference.value, 3)
            assert row.interval == tuple(significant(end, 3) for end in record.comparison.interval)


def test_record_tells_the_run_and_adds_up(climbed_once, trained):
    records = [read_record(climbed_once.store, row) for row in climbed_once.shelf.rows]
    baseline, deep = records[0], records[-1]
    assert baseline.comparison is None and baseline.differs == {} and baseline.opening is None
    assert deep.run == "run-deep" and deep.hypothesis == "deep is better."
    assert deep.created == id_time(deep.id)
    assert deep.data.rows == load_dataset(trained / "data").schema.rows
    assert deep.differs["model"] == ("linear", "mlp") and deep.differs["width"] == (None, 64)
    told = deep.comparison
    assert told.difference.value == pytest.approx(deep.mean - baseline.mean)
    assert (told.baseline, told.baseline_mean, told.attempt_mean) == (baseline.name, baseline.mean, deep.mean)
    assert told.sentence.startswith(f"accuracy is {told.difference.value:.3f} better (±")


def test_stored_model_loads_without_pickle_and_has_the_recorded_checksum(climbed_once, tmp_path):
    for row in climbed_once.shelf.rows:
        record, path = read_record(climbed_once.store, row), tmp_path / row.name
        climbed_once.store.fetch(row.key, path)
        assert len(torch.load(path, weights_only=True)["state_dicts"]) == 3
        schema, models = load_models(path, torch.device("cpu"))
        assert (schema.target, len(models)) == ("digit", 3)
        digests = {
            extension: hashlib.sha256(climbed_once.store.get(row.beside(extension))).hexdigest()
            for extension in record.files
        }
        assert record.files == digests and set(digests) == {".pth", ".npz"}


def test_the_same_run_again_gives_the_identical_record_and_changes_nothing(climbed):
    before = climbed.content()
    for recipe in ("baseline", "faster", "deep"):
        (climbed.folder / "report.html").unlink(missing_ok=True)
        record = climbed.compare(recipe)
        assert record == read_record(climbed.store, climbed.shelf.find(record.id))
        assert (climbed.folder / "report.html").exists()
    assert climbed.content() == before


def test_another_run_of_the_same_recipe_is_another_record(climbed):
    first = climbed.shelf.rows[-1]
    again = climbed.compare("deep", run="again")
    assert again.id > first.id and len(climbed.shelf.rows) == 5
    assert again.comparison.verdict == "supported" and again.opening is None  # no better than the champion


def test_a_run_interrupted_before_its_json_is_completed_under_the_same_id(climbed):
    before, row = climbed.content(), climbed.shelf.champion
    whole = read_record(climbed.store, row)
    for key in (row.beside(".json"), *(key for key in before if f"of-{row.id}" in key)):
        climbed.store.delete(key)
    assert len(climbed.shelf.rows) == len(climbed.shelf.openings) + 2 == len(climbed.shelf.promotions) + 2 == 3
    assert climbed.compare("deep") == whole
    assert climbed.content() == before


def test_an_interrupted_baseline_is_completed_under_the_same_id(camp):
    whole = camp.compare("baseline")
    before = camp.content()
    camp.store.delete(stem(whole.key) + ".json")
    assert camp.shelf.baseline is None
    assert camp.compare("baseline") == whole
    assert camp.content() == before


def test_a_store_that_fails_at_the_json_leaves_no_record_and_the_next_try_completes_it(camp, monkeypatch):
    camp.compare("baseline")
    put = FolderStore.put

    def fail_at_json(self, key, source):
        if key.startswith("digits/attempts/") and key.endswith(".json"):
            raise StoreError("the disk is full")
        put(self, key, source)

    monkeypatch.setattr(FolderStore, "put", fail_at_json)
    with pytest.raises(StoreError, match="the disk is full"):
        camp.compare("deep")
    shelf = camp.shelf
    assert [row.attempt for row in shelf.rows] == ["baseline"] and len(shelf.openings) == 1
    assert shelf.champion == shelf.before_champion == shelf.baseline  # the promotion has no record yet
    monkeypatch.setattr(FolderStore, "put", put)
    record = camp.compare("deep")
    assert record.id == shelf.openings[0] and record.opening.number == 1
    assert camp.shelf.champion.id == record.id


def test_an_interrupted_run_keeps_its_opening_though_others_were_recorded_meanwhile(climbed):
    row = next(row for row in climbed.shelf.rows if row.attempt == "faster")
    opening = read_record(climbed.store, row).opening
    climbed.store.delete(row.beside(".json"))  # "deep" was judged and promoted in between
    record = climbed.compare("faster")
    assert record.id == row.id and record.opening == opening and record.comparison.judged_before == 2
    assert climbed.keys_below("digits/attempts/faster/") == [stem(record.key) + extension for extension in FILES]
    assert b"deep" in climbed.store.get(stem(record.key) + ".html")
    assert len(climbed.keys_below("digits/openings/")) == len(climbed.keys_below("digits/promotions/")) == 2


def test_what_an_interrupted_run_left_under_another_name_is_removed(climbed):
    row = next(row for row in climbed.shelf.rows if row.attempt == "faster")
    forget(climbed, f"of-{row.id}", row.beside(".json"))
    record = climbed.compare("faster", expect=0.9)
    assert record.id == row.id and record.name == row.name.replace("supported", "refuted") != row.name
    assert climbed.keys_below("digits/attempts/faster/") == [stem(record.key) + extension for extension in FILES]


def test_an_attempt_without_baseline_is_refused_with_the_command_to_run(camp):
    with pytest.raises(
        InputError, match=r"digits has no baseline to judge deep against: run the baseline first \(`basekamp run"
    ):
        camp.compare("deep")
    assert camp.keys_below() == [] and not (camp.folder / "report.html").exists()


def test_an_attempt_of_another_metric_is_refused(climbed, trained, tmp_path):
    evaluate_model(trained / "data", trained / "deep" / "model.pth", tmp_path / "told", metric="f1")
    before = climbed.keys_below()
    with pytest.raises(InputError, match="metric: f1 of deep is not the accuracy of the baseline of digits: give the"):
        climbed.compare("deep", run="f1", told=tmp_path / "told")
    assert climbed.keys_below() == before


@pytest.mark.parametrize(("key", "value"), [("target", "letter"), ("classes", tuple("abcdefghij"))])
def test_an_attempt_at_another_question_is_refused(climbed, trained, tmp_path, key, value):
    shutil.copytree(trained / "data", tmp_path / "data")
    schema = load_dataset(tmp_path / "data").schema.model_copy(update={key: value})
    (tmp_path / "data" / "schema.json").write_text(schema.model_dump_json())
    evaluate_model(tmp_path / "data", trained / "deep" / "model.pth", tmp_path / "told", metric="accuracy")
    with pytest.raises(
        InputError, match=rf"{key}: .* of deep is not the .* of the baseline of digits: give the changed"
    ):
        climbed.compare("deep", run="other", data=tmp_path / "data", told=tmp_path / "told")


def relearned(trained: Path, folder: Path, split: Split) -> dict[str, Path]:
    """The recipe "deep" on the digits split otherwise."""
    prepare_data(DataSettings(source="sklearn:digits", target="digit", split=split), folder / "data")
    evaluate_model(folder / "data", trained / "deep" / "model.pth", folder / "told", metric="accuracy")
    return {"data": folder / "data", "told": folder / "told"}


def test_an_attempt_on_other_examples_is_refused(climbed, trained, tmp_path):
    folders = relearned(trained, tmp_path, Split(validation=0.1, test=0.5))
    with pytest.raises(InputError, match="the baseline was measured on other examples"):
        climbed.compare("deep", run="other", **folders)


def test_the_test_split_stays_closed_for_another_data_set(camp, trained, tmp_path):
    camp.compare("baseline")
    record = camp.compare("deep", **relearned(trained, tmp_path, Split(validation=0.25, test=0.2)))
    assert record.verdict == "supported" and record.opening is None
    assert record.comparison.difference.n_examples == record.evaluation.n_examples


STRANGERS = [
    "digits/attempts/deep/notes.json",
    "digits/attempts/deep/.DS_Store.json",
    "digits/attempts/loose.n-3.loss-0.1.accuracy-0.5.spread-0.1.id-r6fhm9ykdxnqr.json",
    "digits/attempts/deep/more/linear.n-3.loss-0.1.accuracy-0.5.spread-0.1.id-r6fhm9ykdxnqr.json",
    "digits/attempts/deep/linear.n-inf.loss-0.1.accuracy-0.5.spread-0.1.id-r6fhm9ykdxnqr.json",
    "digits/attempts/deep/linear.n-3.loss-low.accuracy-0.5.spread-0.1.id-r6fhm9ykdxnqr.json",
    "digits/attempts/deep/linear.spread-0.1.n-3.loss-0.1.accuracy-0.5.id-r6fhm9ykdxnqr.json",
    "digits/attempts/deep/linear.n-3.loss-0.1.accuracy-0.5.spread-0.1.json",
    "digits/models/linear.n-3.loss-0.1.accuracy-0.5.spread-0.1.id-r6fhm9ykdxnqr.json",
    "digits/openings/package.json",
    "digits/promotions/promotion.of-r6fhm9ykdxnqr.by-gate.json",
    "digits/promotions/promotion.of-r6fhm9ykdxnqr.by-gate.id-legacyid99.json",
]


def test_foreign_files_are_listed_as_strangers_and_break_nothing(climbed):
    before = climbed.shelf
    for key in STRANGERS:
        climbed.store.put(key, b"{}")
    assert climbed.shelf == replace(before, strangers=tuple(sorted(STRANGERS)))
    assert read_shelves(climbed.store)[0] == climbed.shelf
    fall_back(climbed.store, climbed.shelf, before.before_champion)
    assert climbed.shelf.champion.attempt == "faster"
    assert climbed.compare("deep", run="again").opening.number == 3


def test_other_files_are_no_part_of_the_listing(climbed):
    before = read_shelves(climbed.store)
    for key in ("readme.json", "digits/readme.json", "digits/attempts/deep/.DS_Store", "digits/attempts/deep/a b.txt"):
        climbed.store.put(key, b"{}")
    assert read_shelves(climbed.store) == before
    assert climbed.compare("deep", run="again").verdict == "supported"


def test_read_shelves_keeps_experiments_apart(climbed):
    climbed.store.put("digits-2/baseline/x.json", b"{}")
    assert [shelf.experiment for shelf in read_shelves(climbed.store)] == ["digits", "digits-2"]
    assert climbed.shelf.strangers == () and len(climbed.shelf.rows) == 4
    assert read_shelf(climbed.store, "none") == Shelf("none", (), ())


def test_a_record_is_found_by_id_name_or_key_with_or_without_extension(climbed_once):
    row = climbed_once.shelf.champion
    for name in (row.id, row.name, row.key, stem(row.name), row.beside(".json")):
        assert climbed_once.shelf.find(name) == find_row(climbed_once.store, name) == row
    with pytest.raises(InputError, match="nonsense is no record of digits: `basekamp runs` lists the names"):
        climbed_once.shelf.find("nonsense")


def test_a_record_of_another_release_is_refused_in_one_sentence(climbed):
    row = climbed.shelf.rows[1]
    told = json.loads(climbed.store.get(row.beside(".json"))) | {"mood": "sunny"}
    climbed.store.delete(row.beside(".json"))
    climbed.store.put(row.beside(".json"), json.dumps(told).encode())
    with pytest.raises(
        InputError, match=r"\.json in .* is no record that this basekamp reads \(1 problems\): use the rel"
    ):
        read_record(climbed.store, row)


def test_rows_as_json_is_json_in_the_promised_order(climbed_once):
    rows = rows_as_json(climbed_once.shelf.rows)
    keys = "name experiment role attempt params metrics n spread difference interval verdict champion key lineage"
    assert [list(row) for row in rows] == [keys.split()] * 4
    assert json.loads(json.dumps(rows, allow_nan=False))[0]["params"] == rows[0]["params"]


def test_the_same_flow_on_s3_tells_the_same(s3_env, climbed_once, trained, tmp_path):
    camp = Camp(trained, tmp_path, f"{s3_env}/team/records")
    records = {recipe: camp.compare(recipe) for recipe in ("baseline", "slower", "faster", "deep")}
    local = climbed_once.shelf

    def told(row: Row) -> Row:
        return replace(row, id="", name="", key="")

    assert [told(row) for row in camp.shelf.rows] == [told(row) for row in local.rows]
    assert camp.compare("deep") == records["deep"] and len(camp.shelf.rows) == 4
    camp.store.delete(stem(records["deep"].key) + ".json")
    again = camp.compare("deep")
    assert again.id == records["deep"].id and camp.shelf.champion.id == again.id
    fall_back(camp.store, camp.shelf, camp.shelf.before_champion)
    assert camp.shelf.champion.attempt == "faster"


def test_a_minimised_metric_is_judged_gated_and_sorted_the_other_way_round(tmp_path, monkeypatch):
    monkeypatch.setenv("BASEKAMP_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(7)
    x = rng.normal(size=(500, 2))
    lines = [
        f"{a:.4f},{b:.4f},{3 * a - b + noise:.4f}" for (a, b), noise in zip(x, rng.normal(size=500) / 9, strict=True)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["a,b,y", *lines]))
    prepare_data(DataSettings(source=str(tmp_path / "table.csv"), target="y"), tmp_path / "data")
    monkeypatch.setitem(RECIPES, "mean", {"model": "mean"})
    monkeypatch.setitem(RECIPES, "line", {"model": "linear", "n_epochs": 6, "batch_size": 16, "lr": 0.05})
    measure_ladder(tmp_path / "data", tmp_path / "ladder", metric="rmse")
    camp = Camp(tmp_path, tmp_path, str(tmp_path / "store"))
    for recipe, attempt in (("mean", "baseline"), ("line", "line")):
        learn(tmp_path, recipe, metric="rmse")
        record = camp.compare(recipe, attempt=attempt, expect=0.5, data=tmp_path / "data")
    assert record.verdict == "supported" and record.comparison.difference.value < 0 < record.comparison.difference.gain
    assert record.opening.passed and camp.shelf.champion.attempt == "line"
    assert camp.shelf.baseline.params == {"model": "mean"} and camp.shelf.baseline.spread == 0.0
    lowest, linear, boosting = (rung.metrics["rmse"] for rung in record.ladder.rungs)
    assert linear < lowest and boosting < lowest
    assert record.comparison.sentence.startswith("rmse is ") and " better (± " in record.comparison.sentence


def test_differing_tells_baselines_and_attempts_value_in_the_baselines_order():
    baseline = {"model": "linear", "lr": 0.1, "width": 8}
    assert differing({"lr": 0.2, "model": "linear", "act": "relu"}, baseline) == {
        "lr": (0.1, 0.2),
        "width": (8, None),
        "act": (None, "relu"),
    }
    assert differing(baseline, baseline) == {}


@pytest.mark.parametrize(
    ("value", "digits", "rounded"),
    [(0.123456789, 5, 0.12346), (98765.4321, 3, 98800.0), (-1.23456e-7, 3, -1.23e-7), (0.0, 5, 0.0), (1.0, 3, 1.0)],
)
def test_significant_keeps_digits_not_decimals(value, digits, rounded):
    assert significant(value, digits) == rounded


RESULTS = {
    "n": 100,
    "loss": -1.2345e-05,
    "balanced_accuracy": -1.2345e-05,
    "spread": 1.23e-05,
    "difference": -1.23e-05,
    "low": -1.23e-05,
    "high": -1.23e-05,
    "verdict": "inconclusive",
}


OPTIONS = st.dictionaries(st.from_regex(r"o[a-z_]{0,11}", fullmatch=True), st.text(max_size=40), max_size=20)


@given(model=st.text("abc.", min_size=1, max_size=60), options=OPTIONS, differs=st.integers(0, 20))
@settings(deadline=None, max_examples=60)
def test_a_name_always_tells_the_results_then_what_differs_and_always_fits(model, options, differs):
    first = list(options)[::-1][:differs]
    name = Name(f"my.pkg:{model}", options | RESULTS, id=new_id(Clock.time, "x"))
    text = file_name(name, first=first)
    told = parse_name(text)
    assert len(text.removesuffix("pth").encode()) + len("json") <= MAX_BYTES and text.endswith(".pth")
    assert {key: told.fields[key] for key in RESULTS} == RESULTS
    assert list(told.fields) == [key for key in name.fields if key in told.fields]  # the order stays
    assert told.cut == len(name.fields) - len(told.fields)
    if told.cut == 0:
        assert told == name


def test_what_differs_is_cut_last():
    options = {f"option_{i:02}": "x" * 20 for i in range(8)}
    told = parse_name(file_name(Name("m", options | RESULTS, id="r0000001"), first=["option_05", "option_07"]))
    assert [key for key in told.fields if key.startswith("option")] == ["option_05", "option_07"] and told.cut == 6


def test_a_model_name_that_leaves_no_room_for_the_results_is_refused():
    with pytest.raises(
        InputError, match=r"is too long for a record's name, .* let package\.module:callable take at most 80"
    ):
        file_name(Name("package." * 16 + "models:build", RESULTS, id="r0000001"), first=())
    file_name(Name(f"{'p' * 74}:build", RESULTS, id=new_id(Clock.time, "x")), first=())


def test_cut_names_are_listed_with_what_they_tell(climbed):
    row = climbed.shelf.rows[-1]
    options = {f"option_{i:02}": "x" * 20 for i in range(8)}
    fields = parse_name(row.name).fields
    name = file_name(Name("pkg:build", options | fields, id="r6fhm9ykdxnqr"), first=())
    climbed.store.put(f"digits/attempts/own/{stem(name)}.json", b"{}")
    listed = climbed.shelf.find("r6fhm9ykdxnqr")
    assert listed.cut > 0 and listed.params["model"] == "pkg:build"
    assert (listed.metrics, listed.verdict, listed.interval) == (row.metrics, row.verdict, row.interval)


def test_questions_of_one_run_have_one_digest_and_others_another():
    make: Callable[..., Question] = lambda run="r", attempt="a": Question("e", attempt, "", 0.1, run)  # noqa: E731
    made = make().new_id(datetime.now(UTC))
    assert make().is_of(made)
    assert not make(run="other").is_of(made) and not make(attempt="b").is_of(made)


def test_a_training_with_one_seed_is_refused_and_leaves_nothing(trained, camp, monkeypatch):
    monkeypatch.setenv("BASEKAMP_HOME", str(camp.folder / "home"))
    shutil.copytree(trained / "data", camp.folder / "data")
    learn(camp.folder, "baseline", seeds=1)
    told = {"model": camp.folder / "baseline", "told": camp.folder / "baseline-told"}
    with pytest.raises(InputError, match="seeds=1 is not allowed: use 2 or more"):
        camp.compare("baseline", **told)
    assert camp.keys_below() == []


def test_files_on_their_way_to_other_nodes_are_no_experiment(camp):
    camp.store.put(".trainjobs/basekamp-1/input/job.json", b"{}")
    assert read_shelves(camp.store) == []
