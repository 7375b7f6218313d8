"""Who is champion: the gate, promotions and falling back."""

import shutil
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from basekamp.data.dataset import load_dataset
from basekamp.errors import InputError
from basekamp.evaluation.evaluate import predict_split
from basekamp.naming import parse_name
from basekamp.records import gate
from basekamp.records.gate import fall_back
from basekamp.records.shelf import (
    Promotion,
    Shelf,
    read_record,
)
from tests.camp import forget
from tests.made_records import make_row

pytestmark = pytest.mark.usefixtures("clock")


def test_gate_opens_for_supported_attempts_better_than_the_champion_and_counts(climbed_once):
    records = {row.attempt: read_record(climbed_once.store, row) for row in climbed_once.shelf.rows}
    assert [name for name, record in records.items() if record.opening] == ["faster", "deep"]
    assert [records[name].opening.number for name in ("faster", "deep")] == [1, 2]
    assert records["faster"].opening.champion == records["baseline"].id
    opening = records["deep"].opening
    assert opening.passed and opening.champion == records["faster"].id
    assert opening.baseline_mean < opening.champion_mean == records["faster"].opening.metrics["accuracy"]
    assert opening.interval[0] < opening.difference < opening.interval[1]
    assert opening.difference == pytest.approx(opening.metrics["accuracy"] - opening.baseline_mean)


def test_opening_and_promotion_are_files_whose_names_tell_all(climbed_once):
    deep = climbed_once.shelf.find(climbed_once.shelf.rows[-1].id)
    told = [parse_name(key.rpartition("/")[2]) for key in climbed_once.keys_below() if f"of-{deep.id}" in key]
    opening, promotion = told
    assert opening.model == "opening" and opening.id == deep.id and opening.fields["passed"] is True
    assert opening.fields.keys() == {"of", "passed", "accuracy", "baseline"}
    assert (promotion.model, promotion.fields) == ("promotion", {"of": deep.id, "by": "gate"})
    assert climbed_once.shelf.openings == tuple(row.id for row in climbed_once.shelf.rows[2:])


def test_champion_is_marked_in_the_listing_and_the_one_before_is_known(climbed_once):
    shelf = climbed_once.shelf
    assert [row.attempt for row in shelf.rows if row.champion] == ["deep"]
    assert (shelf.champion.attempt, shelf.before_champion.attempt) == ("deep", "faster")


def test_until_a_gate_is_passed_the_baseline_is_champion(camp):
    assert camp.shelf.champion is camp.shelf.before_champion is None
    camp.compare("baseline")
    camp.compare("slower")
    shelf = camp.shelf
    assert shelf.champion == shelf.before_champion == shelf.baseline == replace(shelf.rows[0], champion=True)
    assert shelf.openings == shelf.promotions == ()


def test_a_supported_attempt_that_is_worse_than_the_champion_opens_nothing(camp):
    for recipe in ("baseline", "deep"):
        camp.compare(recipe)
    record = camp.compare("faster")
    assert record.verdict == "supported" and record.opening is None
    assert camp.shelf.champion.attempt == "deep" and len(camp.shelf.openings) == 1


def test_a_better_attempt_that_misses_what_it_hoped_for_opens_nothing(camp):
    camp.compare("baseline")
    record = camp.compare("deep", expect=0.9)
    assert record.verdict == "refuted" and record.mean > camp.shelf.baseline.value
    assert record.opening is None and camp.shelf.openings == camp.shelf.promotions == ()


def test_an_attempt_that_fails_on_the_test_split_is_not_promoted(camp, trained, tmp_path):
    data = shutil.copytree(trained / "data", tmp_path / "data")
    answers = predict_split(load_dataset(data), trained / "baseline" / "model.pth", split="test").outputs[0]
    np.save(data / "test" / "y.npy", answers.argmax(axis=1))  # a test split where the baseline is right
    camp.compare("baseline", data=data)
    record = camp.compare("deep", data=data)
    assert record.verdict == "supported" and not record.opening.passed
    assert camp.shelf.champion == camp.shelf.baseline
    assert len(camp.keys_below("digits/openings/")) == 1 and camp.keys_below("digits/promotions/") == []
    assert "passed-false" in camp.keys_below("digits/openings/")[0]


@pytest.mark.parametrize("step", [0, 1, 3600])
def test_falling_back_twice_ends_at_the_baseline_and_deletes_nothing(climbed, clock, step):
    clock.step = timedelta(seconds=step)  # two fallbacks within one second keep their order
    before = climbed.content()
    champions = []
    for _ in range(3):
        fall_back(climbed.store, climbed.shelf, climbed.shelf.before_champion)
        champions.append(climbed.shelf.champion.attempt)
    assert champions == ["faster", "baseline", "baseline"]
    assert before.items() <= climbed.content().items()


def test_each_of_many_fallbacks_within_one_second_counts(climbed, clock):
    clock.step = timedelta(0)
    for row in [*climbed.shelf.rows] * 2:
        fall_back(climbed.store, climbed.shelf, row)
        assert climbed.shelf.champion.id == row.id
    assert len(climbed.shelf.promotions) == 2 + 8


@pytest.mark.parametrize(
    ("promotions", "climb"),
    [
        ("", "base"),
        ("gate:a", "base a"),
        ("gate:a gate:b gate:c", "base a b c"),
        ("gate:a gate:b gate:c fallback:b", "base a b"),
        ("gate:a gate:b gate:c fallback:a gate:d", "base a d"),
        ("gate:a gate:b fallback:base gate:c", "base c"),
        ("gate:a fallback:d", "base d"),
        ("fallback:base", "base"),
        ("gate:gone", "base"),
        ("gate:a gate:gone gate:b fallback:gone", "base a b"),
    ],
)
def test_champion_follows_from_the_promotions(promotions, climb):
    rows = [
        make_row(0.5, id=name, role="baseline" if name == "base" else "attempt")
        for name in ("a", "base", "b", "c", "d")
    ]
    told = [Promotion(f"r{i}", *each.split(":")[::-1]) for i, each in enumerate(promotions.split())]
    shelf, climb = Shelf("e", tuple(rows), tuple(told)), climb.split()
    assert (shelf.champion.id, shelf.before_champion.id) == (climb[-1], climb[-2] if len(climb) > 1 else "base")


def test_falling_back_to_a_named_record_and_climbing_again(climbed):
    deep, slower = climbed.shelf.champion, climbed.shelf.find(climbed.shelf.rows[1].name)
    fall_back(climbed.store, climbed.shelf, slower)
    assert (climbed.shelf.champion.attempt, climbed.shelf.before_champion.attempt) == ("slower", "baseline")
    fall_back(climbed.store, climbed.shelf, climbed.shelf.find(deep.id))
    assert (climbed.shelf.champion.attempt, climbed.shelf.before_champion.attempt) == ("deep", "baseline")
    assert [promotion.by for promotion in climbed.shelf.promotions] == ["gate", "gate", "fallback", "fallback"]


def test_after_a_fallback_the_gate_promotes_again(climbed):
    fall_back(climbed.store, climbed.shelf, climbed.shelf.baseline)
    record = climbed.compare("faster", run="again")
    assert record.opening.number == 3 and record.opening.champion == climbed.shelf.baseline.id
    assert climbed.shelf.champion.id == record.id


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_of_two_promotions_that_race_the_later_id_wins_in_whichever_order_they_were_written(climbed, order):
    rows = climbed.shelf.rows
    forget(climbed, "/promotions/")
    for i in order:
        gate._put_promotion(climbed.store, "digits", of=rows[i].id, by="gate", promotion_id=rows[i].id)
    assert climbed.shelf.champion.id == rows[3].id and climbed.shelf.before_champion.id == rows[2].id


def test_a_promotion_whose_record_is_gone_counts_for_nothing(climbed):
    forget(climbed, "/attempts/deep/")
    assert (climbed.shelf.champion.attempt, climbed.shelf.before_champion.attempt) == ("faster", "baseline")


def test_the_oldest_baseline_is_the_pinned_one(climbed):
    pinned = climbed.shelf.baseline
    again = climbed.compare("baseline", run="verify")
    assert climbed.shelf.baseline == pinned and again.id != pinned.id
    assert again.role == "baseline" and again.differs == {} and again.comparison is None


def test_judged_before_counts_distinct_recipes_and_a_repeated_one_keeps_its_place(climbed):
    records = [read_record(climbed.store, row) for row in climbed.shelf.rows]
    assert [record.comparison.judged_before for record in records[1:]] == [0, 1, 2]
    assert climbed.compare("slower", attempt="same-recipe", run="again").comparison.judged_before == 0
    assert climbed.compare("deep", run="again").comparison.judged_before == 2
    assert climbed.shelf.judged_before({"model": "mlp"}, 3) == 3


def test_more_seeds_are_another_look_at_the_same_recipe(climbed):
    slower = climbed.shelf.rows[1]
    assert [climbed.shelf.judged_before(slower.params, n) for n in (3, 7)] == [0, 3]


def test_a_champion_whose_model_is_gone_is_not_fallen_back_to(climbed):
    slower = climbed.shelf.rows[1]
    climbed.store.delete(slower.key)
    with pytest.raises(InputError, match="the model of .* was removed, by `basekamp gc` or by hand: choose"):
        fall_back(climbed.store, climbed.shelf, slower)
    assert len(climbed.shelf.promotions) == 2
