import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from basekamp.data.dataset import Dataset, load_dataset
from basekamp.data.encoding import encode_features
from basekamp.data.prepare import prepare_data
from basekamp.data.sources import source_fingerprint
from basekamp.data.split import assign_sides, hash_column, hash_images
from basekamp.errors import InputError
from basekamp.experiment import DataSettings, Reading
from benchmarks.bench_memory import write_numbers

SPLITS = ("train", "validation", "test")


def table(rows: int = 400) -> pl.DataFrame:
    """Numbers, categories, a bool, a date and an id; `label` is yes in a third of the rows."""
    random = np.random.default_rng(0)
    number = random.normal(5, 2, rows)
    return pl.DataFrame(
        {
            "id": [f"row-{i}" for i in range(rows)],
            "number": [None if i % 10 == 0 else v for i, v in enumerate(number.tolist())],
            "color": [["red", "green", "blue", None][i % 4] for i in range(rows)],
            "flag": (random.random(rows) < 0.3).tolist(),
            "day": [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(rows)],
            "same": ["x"] * rows,
            "label": [["no", "yes", "no"][i % 3] for i in range(rows)],
            "amount": (number * 3 + random.normal(0, 1, rows)).tolist(),
        }
    )


def prepared(tmp_path: Path, frame: pl.DataFrame, name: str = "data", **settings: Any) -> Dataset:
    source = tmp_path / f"{name}.csv"
    frame.write_csv(source)
    return prepare_data(DataSettings(source=str(source), **{"target": "label", **settings}), tmp_path / name)


def refused(tmp_path: Path, frame: pl.DataFrame, message: str, **settings: Any) -> None:
    """Check the message, and that nothing was left behind."""
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, frame, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["data.csv"]


def test_table_becomes_a_dataset(tmp_path: Path) -> None:
    schema = prepared(tmp_path, table(), drop=("id",)).schema
    assert (schema.task, schema.kind, schema.classes) == ("classification", "tabular", ("no", "yes"))
    names = [(feature.name, feature.kind) for feature in schema.features]
    numbers = ["number", "flag", "day_month", "day_day", "day_weekday", "day_ordinal_day", "amount"]
    assert [name for name, kind in names if kind == "numeric"] == numbers
    assert [name for name, kind in names if kind == "indicator"] == ["number_missing"]
    assert names[-1] == ("color", "categorical")
    assert (schema.n_numeric, schema.cardinalities, schema.input_shape) == (8, (4,), (9,))
    assert set(schema.cleaning.constant_columns) == {"day_year", "day_hour", "day_minute", "same"}
    assert schema.cleaning.missing_values == {"number": 40, "color": 100}
    assert schema.cleaning.dropped_columns == ("id",)


def test_arrays_have_the_documented_types_and_sizes(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, table(), drop=("id",))
    sizes = {}
    for name in SPLITS:
        x, y, rows, _, _ = dataset.split(name)
        assert isinstance(x, np.memmap)
        assert (x.dtype, y.dtype, rows.dtype) == (np.float32, np.int64, np.uint64)
        assert x.shape == (len(y), *dataset.schema.input_shape)
        assert np.isfinite(x).all()
        sizes[name] = len(rows)
    assert sizes == dataset.schema.rows
    assert sum(sizes.values()) == 400


def test_every_row_knows_its_number_in_the_source(tmp_path: Path) -> None:
    frame = (
        pl.concat([table(300), table(300).head(20)]).with_row_index("nth", 1).with_columns(pl.col("nth").cast(float))
    )
    frame = frame.with_columns(label=pl.when(pl.col("nth") % 50 != 0).then(pl.col("label")))
    dataset = prepared(tmp_path, frame, drop=("id",))
    place = next(i for i, feature in enumerate(dataset.schema.features) if feature.name == "nth")
    feature, found = dataset.schema.features[place], []
    for name in SPLITS:
        split = dataset.split(name)
        assert split.numbers is not None
        assert np.allclose(split.x[:, place] * feature.std + feature.mean, split.numbers, atol=0.01)
        found += split.numbers.tolist()
    assert sorted(found) == [n for n in range(1, 321) if n % 50]


def test_numbers_are_standardised_on_the_training_split(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, table(2000), drop=("id",))
    train = dataset.split("train").x
    number, missing = train[:, 0], train[:, 1]
    assert set(np.unique(missing)) == {0.0, 1.0}
    assert (number[missing == 1] == 0).all()
    assert abs(number[missing == 0].mean()) < 1e-5
    assert abs(number[missing == 0].std() - 1) < 1e-4
    assert abs(dataset.split("test").x[:, 0].mean()) > 1e-5


def test_validation_and_test_values_do_not_reach_the_statistics(tmp_path: Path) -> None:
    frame = table().with_columns(number=pl.col("number").fill_null(0.0))
    before = prepared(tmp_path, frame, drop=("id",), split={"group": "id"})
    sides = assign_sides(hash_column(frame["id"]), validation=0.15, test=0.2)
    changed = frame.with_columns(number=pl.when(pl.Series(sides == 0)).then("number").otherwise(999.0))
    after = prepared(tmp_path, changed, "changed", drop=("id",), split={"group": "id"})
    assert after.schema.features == before.schema.features
    assert (after.split("train").x == before.split("train").x).all()
    assert (after.split("test").x[:, 0] == 10).all()


def test_rare_and_unseen_categories_share_code_0(tmp_path: Path) -> None:
    frame = table().with_columns(
        color=pl.when(pl.int_range(400) < 6).then(pl.lit("odd")).otherwise(pl.lit("blue")),
    )
    schema = prepared(tmp_path, frame.with_columns(shape=pl.Series(["a", "b"] * 200)), drop=("id",)).schema
    assert schema.cleaning.rare_categories == {"color": 1}
    found = {f.name: f.categories for f in schema.features if f.kind == "categorical"}
    assert found == {"color": ("blue",), "shape": ("a", "b")}
    feature = [f for f in schema.features if f.name == "shape"]
    codes = encode_features(pl.DataFrame({"shape": ["a", "b", "new", None]}), feature)
    assert codes[:, 0].tolist() == [1, 2, 0, 0]


def test_wild_numbers_are_clipped(tmp_path: Path) -> None:
    frame = table().with_columns(
        wild=pl.Series([float("inf"), float("-inf"), 1e308, -1e308] * 5 + [float(i % 7) for i in range(380)])
    )
    dataset = prepared(tmp_path, frame, drop=("id",))
    for name in SPLITS:
        assert np.isfinite(dataset.split(name).x).all()
        assert np.abs(dataset.split(name).x[:, : dataset.schema.n_numeric]).max() <= 10


def test_identifier_column_is_left_out(tmp_path: Path) -> None:
    schema = prepared(tmp_path, table(3000)).schema
    assert schema.cleaning.identifier_columns == ("id",)
    assert "id" not in [feature.name for feature in schema.features]


def test_duplicates_and_missing_targets_are_counted(tmp_path: Path) -> None:
    frame = table()
    blank = frame.head(7).with_columns(label=pl.lit(None, dtype=pl.String), id=pl.lit("new"))
    cleaning = prepared(tmp_path, pl.concat([frame, frame.head(5), blank])).schema.cleaning
    assert (cleaning.rows_read, cleaning.duplicates_dropped, cleaning.missing_target_dropped) == (412, 5, 7)


def test_rows_that_differ_only_in_a_dropped_column_are_kept_on_one_side(tmp_path: Path) -> None:
    twins = table(100).with_columns(id=pl.col("id") + " again")
    dataset = prepared(tmp_path, pl.concat([table(100), twins]), drop=("id",))
    assert (sum(dataset.schema.rows.values()), dataset.schema.cleaning.duplicates_dropped) == (200, 0)
    for name in SPLITS:
        assert set(np.unique(dataset.split(name).rows, return_counts=True)[1].tolist()) == {2}


def test_a_row_keeps_its_side_when_rows_and_dropped_columns_are_added(tmp_path: Path) -> None:
    frame = table()
    small = prepared(tmp_path, frame.head(300).drop("id"), "small")
    large = prepared(tmp_path, frame.reverse(), "large", drop=("id",))
    for name in SPLITS:
        assert set(small.split(name).rows.tolist()) <= set(large.split(name).rows.tolist())


def test_a_group_never_meets_itself_in_another_split(tmp_path: Path) -> None:
    frame = table().with_columns(owner=pl.Series([f"owner {i % 50}" for i in range(400)]))
    frame = frame.with_columns(mark=pl.Series([float(i % 50) for i in range(400)]))
    dataset = prepared(tmp_path, frame, drop=("id",), split={"group": "owner"})
    names = [feature.name for feature in dataset.schema.features]
    assert "owner" not in names
    marks = [set(dataset.split(name).x[:, names.index("mark")].tolist()) for name in SPLITS]
    assert not (marks[0] & marks[1] or marks[0] & marks[2] or marks[1] & marks[2])
    for name in SPLITS:
        x, groups = dataset.split(name).x[:, names.index("mark")], dataset.split(name).groups
        assert groups is not None
        assert len(set(zip(x.tolist(), groups.tolist(), strict=True))) == len(set(x)) == len(set(groups))
    assert prepared(tmp_path, frame, "plain", drop=("id",)).split("test").groups is None


def test_a_validation_split_of_one_group_is_refused(tmp_path: Path) -> None:
    frame = table(12).with_columns(owner=pl.Series([f"owner {i % 3}" for i in range(12)]))
    with pytest.raises(InputError, match="rows are of one group of 'owner', at least 2"):
        prepared(
            tmp_path, frame, drop=("id",), target="amount", split={"group": "owner", "validation": 0.3, "test": 0.3}
        )


def test_regression_keeps_the_raw_target(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, table(), target="amount", drop=("id",))
    schema, y = dataset.schema, dataset.split("train").y
    assert (schema.task, schema.classes, y.dtype) == ("regression", (), np.float32)
    assert schema.target_mean == pytest.approx(float(y.mean()), rel=1e-5)
    assert schema.floor["train"] == pytest.approx(schema.target_std)


@pytest.mark.parametrize(
    ("values", "task", "found", "classes"),
    [
        ([10, 9, 2, 100], "auto", "classification", ("2", "9", "10", "100")),
        ([1.0, 2.0, 0.5], "auto", "regression", ()),
        ([1.0, 2.0, 0.5], "classification", "classification", ("0.5", "1", "2")),
        ([True, False], "auto", "classification", ("false", "true")),
        (["b", "a"], "auto", "classification", ("a", "b")),
        (list(range(21)), "auto", "regression", ()),
        (list(range(20)), "regression", "regression", ()),
    ],
)
def test_task_and_classes_follow_the_target(
    tmp_path: Path, values: list[Any], task: str, found: str, classes: tuple[str, ...]
) -> None:
    labels = (values * 400)[:400]
    frame = table().drop("label").with_columns(label=pl.Series(labels))
    schema = prepared(tmp_path, frame, task=task, drop=("id",)).schema
    assert (schema.task, schema.classes) == (found, classes)


def test_floor_is_the_share_of_the_commonest_training_class(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, table())
    for name in SPLITS:
        assert dataset.schema.floor[name] == pytest.approx(float((dataset.split(name).y == 0).mean()))


def test_digits_become_images(tmp_path: Path) -> None:
    dataset = prepare_data(DataSettings(source="sklearn:digits", target="digit"), tmp_path / "digits")
    schema, x = dataset.schema, dataset.split("train").x
    assert (schema.kind, schema.input_shape, len(schema.classes)) == ("image", (1, 8, 8), 10)
    assert (x.dtype, sum(schema.rows.values())) == (np.uint8, 1797)
    assert schema.pixel_mean == pytest.approx([float(x.mean())])
    assert schema.pixel_std == pytest.approx([float(x.std())])


def images(tmp_path: Path, labels: np.ndarray[Any, Any] | None = None, rows: int = 100) -> str:
    pixels = np.random.default_rng(1).integers(0, 255, (rows, 8, 8)).astype(np.uint8)
    pixels[1] = pixels[0]
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(rows) % 2 if labels is None else labels)
    return str(tmp_path / "data.npz")


def test_the_same_image_with_another_label_stays_on_one_side(tmp_path: Path) -> None:
    dataset = prepare_data(DataSettings(source=images(tmp_path), target="labels"), tmp_path / "data")
    assert dataset.schema.cleaning.duplicates_dropped == 0
    sides = [name for name in SPLITS for row in dataset.split(name).rows if row == _first_hash(tmp_path)]
    assert len(sides) == 2
    assert len(set(sides)) == 1


def _first_hash(tmp_path: Path) -> int:
    return int(hash_images(np.load(tmp_path / "data.npz")["images"][:1, None])[0])


def test_string_labels_and_exact_image_duplicates_are_handled(tmp_path: Path) -> None:
    labels = np.array(["cat", "cat"] + ["cat", "dog"] * 49)
    dataset = prepare_data(DataSettings(source=images(tmp_path, labels), target="labels"), tmp_path / "data")
    assert dataset.schema.classes == ("cat", "dog")
    assert dataset.schema.cleaning.duplicates_dropped == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "label"}, "no column 'label' among labels: did you mean 'labels'"),
        ({"target": "labels", "drop": ("x",)}, "no column 'x' among labels"),
        ({"target": "labels", "split": {"group": "labels"}}, "images have no column but 'labels'|group"),
    ],
)
def test_images_with_settings_that_do_not_fit_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    source = images(tmp_path)
    with pytest.raises(ValueError, match=message):
        prepare_data(DataSettings(source=source, **settings), tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "lable"}, "no column 'lable' among id, .*: did you mean 'label'"),
        ({"target": "zzz"}, "no column 'zzz' among .*: use one of them"),
        ({"drop": ("nunber",)}, "no column 'nunber' .*did you mean 'number'"),
        ({"split": {"group": "colour"}}, "no column 'colour' .*did you mean 'color'"),
        ({"task": "regression"}, "target 'label' holds text: regression needs numbers"),
        ({"target": "day"}, "target 'day' is of type Datetime.*use a column of numbers"),
        ({"target": "same"}, "target 'same' has the single value 'x', at least 2 are needed"),
        ({"target": "amount", "task": "classification"}, "classes with a single row .* and 395 more.*merge them"),
        ({"drop": ("id", "number", "color", "flag", "day", "same", "amount")}, "no column is left to learn from"),
        ({"drop": ("number", "color", "flag", "day", "amount"), "rare": 1000}, "constant or identifiers"),
    ],
)
def test_settings_that_do_not_fit_the_table_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    refused(tmp_path, table(), message, **settings)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([None] * 400, "target 'label' has no value in any row"),
        ([1.5] + [float("nan")] * 399, "missing or NaN in 399 of 400 rows, at most half"),
        ([float("inf")] + [1.5, 2.5, 3.5] * 133, "target 'label' is infinite or beyond .* in 1 of 400 rows"),
        ([1e300] + [1.5, 2.5, 3.5] * 133, "is infinite or beyond 3.4e38 in 1 of 400"),
        (["once"] + ["a", "b", "c"] * 133, r"single row \('once'\)"),
        ([1] * 400, "the single value 1"),
    ],
)
def test_unusable_target_is_refused(tmp_path: Path, labels: list[Any], message: str) -> None:
    frame = table().drop("label").with_columns(label=pl.Series(labels))
    refused(tmp_path, frame, message)


def test_a_target_missing_in_half_of_the_rows_is_allowed(tmp_path: Path) -> None:
    frame = table().with_columns(label=pl.Series([1.5, None, float("nan"), 2.5] * 100))
    schema = prepared(tmp_path, frame, task="classification").schema
    assert (schema.classes, schema.cleaning.missing_target_dropped) == (("1.5", "2.5"), 200)


def test_too_many_classes_are_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": range(20_002), "label": [f"class {i // 2}" for i in range(20_002)]})
    refused(tmp_path, frame, "has 10001 classes, at most 10000 are allowed")


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, table(6), "split gets . of 6 rows, at least 2 are needed", drop=("id",))


def test_lists_are_refused_unless_dropped(tmp_path: Path) -> None:
    frame = table().with_columns(tags=pl.Series([[i] for i in range(400)]))
    frame.write_parquet(tmp_path / "t.parquet")
    source = str(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="column 'tags' holds lists, objects or bytes .List.*put it into data.drop"):
        prepare_data(DataSettings(source=source, target="label"), tmp_path / "data")
    prepare_data(DataSettings(source=source, target="label", drop=("tags",)), tmp_path / "data")


def test_target_cannot_be_dropped_or_group(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label"):
        prepared(tmp_path, table(), drop=("label",))
    with pytest.raises(ValueError, match="label"):
        prepared(tmp_path, table(), split={"group": "label"})


def test_changed_source_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "data.csv"
    table().write_csv(source)
    settings, before = DataSettings(source=str(source), target="label"), source_fingerprint(str(source))
    assert prepare_data(settings, tmp_path / "one", fingerprint=before).schema.fingerprint == before
    table(401).write_csv(source)
    with pytest.raises(InputError, match=r"data.csv changed \(fingerprint .*, expected .*\): run the experiment"):
        prepare_data(settings, tmp_path / "two", fingerprint=before)
    assert not (tmp_path / "two").exists()


def test_fingerprint_of_the_dataset_follows_its_content_alone(tmp_path: Path) -> None:
    one, two = prepared(tmp_path, table(), "one"), prepared(tmp_path, table(), "two")
    other = prepared(tmp_path, table(401), "other")
    assert one.schema.source != two.schema.source
    assert one.schema.dataset_fingerprint == two.schema.dataset_fingerprint
    assert one.schema.dataset_fingerprint != other.schema.dataset_fingerprint


def test_an_earlier_dataset_is_replaced_and_other_files_are_not(tmp_path: Path) -> None:
    assert sum(prepared(tmp_path, table()).schema.rows.values()) == 400
    assert sum(prepared(tmp_path, table(300)).schema.rows.values()) == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.csv"]
    (tmp_path / "data" / "schema.json").rename(tmp_path / "data" / "mine.txt")
    with pytest.raises(InputError, match="holds other files: name an empty or new folder"):
        prepared(tmp_path, table())


def test_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    table().write_csv(tmp_path / "data.csv")
    settings = DataSettings(source=str(tmp_path / "data.csv"), target="label")
    with pytest.raises(InputError, match="is a file: name an empty or new folder"):
        prepare_data(settings, tmp_path / "file")
    with pytest.raises(InputError, match=r"cannot be written to .*\(Not a directory\): check the space"):
        prepare_data(settings, tmp_path / "file" / "data")


def test_dataset_folder_has_the_rights_of_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    directory = prepared(tmp_path, table()).directory
    assert os.stat(directory).st_mode == os.stat(tmp_path / "plain").st_mode


def test_written_arrays_stay_as_they_are(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, table())
    before = dataset.split("train").y.copy()
    dataset.split("train").y[:] = 7
    assert (dataset.split("train").y == before).all()


def test_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a dataset folder: make one with prepare_data"):
        load_dataset(tmp_path)
    directory = prepared(tmp_path, table()).directory
    schema = json.loads((directory / "schema.json").read_text())
    (directory / "schema.json").write_text(json.dumps(schema | {"version": 99}))
    with pytest.raises(InputError, match="is a dataset of version 99, this basekamp reads 1"):
        load_dataset(directory)


def test_damaged_or_unknown_split_is_refused(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, table())
    with pytest.raises(InputError, match="no split 'val': use one of train, validation, test"):
        dataset.split("val")
    (dataset.directory / "train" / "x.npy").write_bytes(b"short")
    with pytest.raises(InputError, match="cannot be read .*: prepare the data again"):
        dataset.split("train")


def test_a_dropped_group_still_decides_and_rows_without_one_stand_alone(tmp_path: Path) -> None:
    frame = table().with_columns(owner=pl.Series([None if i % 2 else f"owner {i % 40}" for i in range(400)]))
    dataset = prepared(tmp_path, frame, drop=("id", "owner"), split={"group": "owner"})
    assert 0.1 < dataset.schema.rows["test"] / 400 < 0.35
    assert dataset.schema.cleaning.dropped_columns == ("id", "owner")


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert sum(prepared(tmp_path, table()).schema.rows.values()) == 400


def test_rows_that_cannot_be_read_are_put_aside_and_counted(tmp_path: Path) -> None:
    lines = [f"{i},{'red' if i % 2 else 'blue'},{i % 3}" for i in range(400)]
    lines[7], lines[200], lines[300] = "7,red", '200,"blue,1', "abc,blue,2"
    source = tmp_path / "t.csv"
    source.write_text("\n".join(["a,color,label", *lines]) + "\n")
    settings = DataSettings(source=str(source), target="label")
    with pytest.raises(InputError, match="line 9 of t.csv has 2 values, the header 3: mend it, or set"):
        prepare_data(settings, tmp_path / "data")
    settings = settings.model_copy(update={"reading": Reading(on_bad_row="quarantine")})
    dataset = prepare_data(settings, tmp_path / "data")
    assert (dataset.schema.cleaning.rows_quarantined, dataset.schema.cleaning.rows_read) == (3, 397)
    assert "put aside in quarantine.csv</td><td>3" in (dataset.directory / "profile.html").read_text()
    rows = pl.read_csv(dataset.directory / "quarantine.csv").rows()
    assert [(line, row) for _, line, _, row in rows] == [(9, "7,red"), (202, '200,"blue,1'), (302, "abc,blue,2")]
    assert [reason[:12] for _, _, reason, _ in rows] == ["has 2 values", "has a quote ", "has 'abc' in"]


CAPPED = """
import resource, sys
from pathlib import Path
from basekamp.data import csv_file, csv_rows, leakage, table
from basekamp.data.prepare import prepare_data
from basekamp.experiment import DataSettings

csv_file.BLOCK_BYTES = csv_rows.BLOCK_BYTES = 1 << 20
leakage.BATCH_VALUES = table.BATCH_VALUES = 1 << 19
small, large, folder, more = sys.argv[1:]
prepare_data(DataSettings(source=small, target="y"), Path(folder) / "small")  # the libraries are mapped now
status = Path("/proc/self/status").read_text()
mapped = int(status.partition("VmSize:")[2].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_AS, (mapped + int(more),) * 2)
prepare_data(DataSettings(source=large, target="y"), Path(folder) / "large")
"""


@pytest.mark.slow
def test_a_table_need_not_fit_into_the_memory_that_there_is(tmp_path: Path) -> None:
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    write_numbers(small, mib=24, columns=50)
    rows = write_numbers(large, mib=320, columns=50)
    more = int(large.stat().st_size * 0.55)
    command = [sys.executable, "-c", CAPPED, str(small), str(large), str(tmp_path), str(more)]
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "1",
        "POLARS_MAX_THREADS": "2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(load_dataset(tmp_path / "large").schema.rows.values()) == rows
