"""The lab book and the search in it, over a real store of many experiments."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from basekamp.errors import InputError
from basekamp.naming import Name, format_name, new_id
from basekamp.records.gate import fall_back
from basekamp.records.labbook import read_labbook, search
from basekamp.records.shelf import read_shelf, read_shelves
from basekamp.report.labbook import hits_as_text, pages_as_json, pages_as_markdown, pages_table
from basekamp.storage import open_store

BASEKAMP = Path(sys.executable).with_name("basekamp")
START = datetime(2026, 1, 1, tzinfo=UTC)
TRIED = [
    ("baseline", "", None),
    ("wide", "Wider  layers\nsee more strokes.", "supported"),
    ("deep", "Deeper networks <b>catch</b> [red]interactions[/red].", "refuted"),
    ("café", "Ｆｕｌｌ width letters, STRASSE.", "inconclusive"),
]


def put(store, experiment, number, attempt, hypothesis, verdict, *, damaged=False):
    """A record that is so many days younger than the first; gives its id."""
    record_id = new_id(START + timedelta(days=number), f"{experiment}/{attempt}")
    results = {"n": 3, "loss": 0.5, "accuracy": 0.8 + number / 100, "spread": 0.01}
    if verdict:
        results |= {"difference": -0.1, "low": -0.2, "high": 0.0, "verdict": verdict}
    name = format_name(Name("mlp", {"n_layers": number, "act": "gelu"} | results, "json", record_id))
    folder = "baseline" if attempt == "baseline" else f"attempts/{attempt}"
    store.put(f"{experiment}/{folder}/{name}", b"{" if damaged else json.dumps({"hypothesis": hypothesis}).encode())
    return record_id


@pytest.fixture
def store(tmp_path):
    opened = open_store(str(tmp_path / "store"))
    for number, (attempt, hypothesis, verdict) in enumerate(TRIED):
        put(opened, "digits", number, attempt, hypothesis, verdict)
    put(opened, "broken", 9, "bad", "", "refuted", damaged=True)
    return opened


def pages_of(store):
    return read_labbook(store, read_shelves(store))


def test_labbook_tells_all_records_oldest_first_with_hypothesis_and_verdict(store):
    told = [(page.row.attempt, page.hypothesis, page.row.verdict) for page in pages_of(store)[:4]]
    assert told[:2] == [("baseline", "", None), ("wide", "Wider layers see more strokes.", "supported")]
    assert [one[0] for one in told] == [attempt for attempt, _, _ in TRIED]


def test_hypothesis_cannot_command_a_terminal(store):
    put(store, "odd", 12, "a", "red \x1b[31m and \u202eback", "refuted")
    assert pages_of(store)[-1].hypothesis == "red [31m and back"


def test_damaged_record_is_told_and_stops_nothing(store):
    last = pages_of(store)[-1]
    assert (last.row.attempt, last.problem) == ("bad", "its JSON is no record")
    assert "not readable: its JSON is no record" in pages_as_markdown([last])


def test_fallback_is_a_line_of_its_own(store):
    shelf = read_shelf(store, "digits")
    wide = next(row for row in shelf.rows if row.attempt == "wide")
    store.put(wide.key, b"the model")
    fall_back(store, shelf, wide)
    last = pages_of(store)[-1]
    assert (last.kind, last.row.attempt) == ("fallback", "wide")
    assert "is champion again" in pages_as_markdown([last])


@pytest.mark.parametrize("width", [80, 200])
def test_table_is_one_line_a_page_and_shows_texts_literally(store, width):
    pages = [page for page in pages_of(store) if page.row.experiment == "digits"]
    console = Console(width=width)
    with console.capture() as captured:
        console.print(pages_table(pages, width=width))
    lines = captured.get().splitlines()
    assert len(lines) == 5 and all(len(line) <= width for line in lines)
    assert "<b>ca" in lines[3] and ("[red]interactions[/red]." in lines[3]) == (width == 200)
    assert ("…" in lines[3]) == (width == 80)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("strokes", ["wide"]),
        ("STROKE wider", ["wide"]),
        ("full", ["café"]),
        ("straße", ["café"]),
        ("cafe\u0301", ["café"]),
        ("refuted", ["deep", "bad"]),
        ("n_layers=2", ["deep"]),
        ("gelu digits", ["baseline", "wide", "deep", "café"]),
        ("strokes deeper", []),
        ("troke", []),
    ],
)
def test_search_finds_what_holds_every_word(store, text, found):
    assert sorted(hit.page.row.attempt for hit in search(pages_of(store), text)) == sorted(found)


def test_search_puts_the_better_hit_first(store):
    put(store, "other", 20, "stroke", "strokes", "refuted")
    assert [hit.page.row.attempt for hit in search(pages_of(store), "strokes")] == ["stroke", "wide"]


@pytest.mark.parametrize("text", ["", " ", "?!"])
def test_search_for_no_word_is_refused(store, text):
    with pytest.raises(InputError, match="holds no word to look for"):
        search(pages_of(store), text)


def test_hits_say_what_was_tried_already(store):
    text = hits_as_text(search(pages_of(store), "deeper"))
    assert "digits/deep  already tried: refuted, difference −0.100" in text
    assert pages_as_json(pages_of(store))[2]["verdict"] == "refuted"


def command(store, *arguments):
    return subprocess.run([BASEKAMP, *arguments, "--store", store.url], capture_output=True, text=True)


def test_commands_show_the_lab_book_and_what_was_tried(store):
    assert len(json.loads(command(store, "log", "--json").stdout)) == 5
    assert len(json.loads(command(store, "log", "digits", "--json").stdout)) == 4
    done = command(store, "search", "deeper networks")
    assert "already tried: refuted" in done.stdout and "Next: basekamp show r" in done.stdout
    assert "Nothing of it was tried" in command(store, "search", "transformers").stdout
    assert command(store, "search", "?").returncode == 2


def test_runs_of_several_experiments_are_one_line_each(store):
    lines = command(store, "runs").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["broken", "digits"]
    assert lines[-1].startswith("Next: basekamp runs broken --store ")
    assert len(command(store, "runs", "--every-row", "--csv").stdout.splitlines()) == 6
    assert len(json.loads(command(store, "runs", "--json").stdout)) == 5
    assert json.loads(command(store, "runs", "digits", "--top", "1", "--json").stdout)[0]["attempt"] == "baseline"


@pytest.mark.parametrize(("more", "words"), [(["--csv", "--json"], "choose one of them"), (["--top", "0"], "--top")])
def test_runs_refuses_what_does_not_go_together(store, more, words):
    done = command(store, "runs", *more)
    assert done.returncode == 2 and words in done.stderr and not done.stdout


def test_runs_names_the_first_of_many_strangers_without_their_control_characters(store, tmp_path):
    folder = tmp_path / "store" / "digits" / "attempts" / "odd"
    folder.mkdir(parents=True)
    for number in range(8):
        (folder / f"x\u202e{number}.json").touch()
    done = command(store, "runs", "--json")
    assert len(json.loads(done.stdout)) == 5
    assert "8 files are no records' names: digits/attempts/odd/x\\u202e0.json" in done.stderr and "…" in done.stderr
    assert "\u202e" not in done.stderr
