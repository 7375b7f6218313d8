"""A new baseline begins a lineage, and the old one stays readable."""

from datetime import timedelta

import pytest

from basekamp.errors import InputError, StoreError
from basekamp.records import rebase
from basekamp.records.record import Record
from basekamp.records.shelf import (
    find_row,
    read_record,
    stem,
)
from tests.camp import Camp
from tests.failing_store import fail_at

pytestmark = pytest.mark.usefixtures("clock")


def anew(camp: Camp, recipe: str = "simplest") -> Record:
    """Record another baseline and begin a new lineage with it."""
    record = camp.compare(recipe, attempt="baseline", run="anew")
    rebase.rebase(camp.store, camp.shelf, camp.shelf.find(record.id))
    return record


def test_after_a_rebase_all_is_judged_against_the_new_baseline_and_looks_count_on(climbed):
    baseline = anew(climbed)
    shelf = climbed.shelf
    assert [row.id for row in shelf.rows] == [baseline.id] and shelf.champion.id == shelf.baseline.id == baseline.id
    assert [row.attempt for row in shelf.earlier] == ["baseline", "slower", "faster", "deep"]
    assert {row.lineage for row in shelf.earlier} == {1} and not any(row.champion for row in shelf.earlier)
    record = climbed.compare("deep", run="anew")
    assert (record.comparison.baseline, record.comparison.judged_before) == (baseline.name, 3)
    assert record.verdict == "supported" and record.opening.number == 3 and record.opening.champion == baseline.id
    assert [(row.attempt, row.lineage) for row in climbed.shelf.rows] == [("baseline", 2), ("deep", 2)]
    assert climbed.shelf.champion.id == record.id


def test_a_rebase_within_one_second_of_what_came_before_parts_it_all_the_same(climbed, clock):
    clock.step = timedelta(0)
    baseline = anew(climbed)
    assert [row.id for row in climbed.shelf.rows] == [baseline.id] and len(climbed.shelf.earlier) == 4


def test_a_rebase_leaves_earlier_records_readable_and_their_runs_repeatable(climbed):
    deep, before = climbed.shelf.champion, climbed.content()
    record = read_record(climbed.store, deep)
    baseline = anew(climbed)
    assert before.items() <= climbed.content().items()
    assert find_row(climbed.store, deep.id).key == deep.key
    after = climbed.content()
    assert climbed.compare("deep") == record and climbed.content() == after
    page = (climbed.folder / "report.html").read_text()  # beside the records and the baseline of its own lineage
    assert "slower" in page and record.comparison.baseline in page and baseline.name not in page


def test_fallback_does_not_leave_the_present_lineage(climbed):
    deep = climbed.shelf.champion
    baseline = anew(climbed)
    with pytest.raises(InputError, match="was judged against an earlier baseline of digits: choose a record of the pr"):
        climbed.shelf.find(deep.id)
    assert climbed.shelf.before_champion.id == baseline.id


def test_a_second_rebase_begins_a_third_lineage(climbed):
    anew(climbed)
    climbed.compare("deep", run="second")
    record = climbed.compare("slower", attempt="baseline", run="third")
    rebase.rebase(climbed.store, climbed.shelf, climbed.shelf.find(record.id))
    lineages = [(row.attempt, row.lineage) for row in climbed.shelf.every]
    assert lineages[4:] == [("baseline", 2), ("deep", 2), ("baseline", 3)]
    assert climbed.shelf.baseline.id == record.id


def test_a_rebase_whose_baseline_is_gone_counts_for_nothing(climbed):
    before = climbed.shelf
    climbed.store.delete(stem(anew(climbed).key) + ".json")
    assert climbed.shelf == before


@pytest.mark.parametrize("call", range(1, 7))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rebase_that_the_store_stops_leaves_all_as_before_or_as_after(climbed, monkeypatch, call, when):
    old = climbed.shelf
    with monkeypatch.context() as patch:
        calls = fail_at(patch, "put", call=call, when=when)
        if call < 6:
            with pytest.raises(StoreError):
                anew(climbed)
        else:
            anew(climbed)
            assert len(calls) == 5  # predictions, model, report, record, and the mark that makes it the baseline
    shelf, has_begun = climbed.shelf, call == 6 or (call, when) == (5, "after")
    assert (shelf.baseline.id == old.baseline.id) == (shelf.champion == old.champion) == (not has_begun)
    assert {row.id for row in old.rows} <= {row.id for row in shelf.every} and not shelf.strangers
    if not has_begun:
        anew(climbed)
    assert climbed.shelf.baseline.params == {"model": "majority"} and len(climbed.shelf.every) == 5
