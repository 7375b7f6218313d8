import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from basekamp.records.gate import record_opening
from basekamp.records.record import Record
from basekamp.records.shelf import Shelf, read_shelf, stem
from basekamp.report.attempt import attempt_html, attempt_markdown, history, metric_lines
from basekamp.report.numbers import between, change, confidence, direction, number, setting, signed
from basekamp.report.performance import performance_rows
from basekamp.report.record import record_table
from basekamp.storage import open_store
from basekamp.training.results import Curves, Performance, Seconds
from tests.made_records import (
    ATTACK,
    BASE,
    BETTER,
    EMPTY,
    FAILED,
    LINEAR,
    PASSED,
    RMSE,
    RMSE_BASE,
    UNSURE,
    WORSE,
    make_record,
)


class Page(HTMLParser):
    """Text and cells of the tables, cards and headings of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self._table: list[list[str]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._table = self.tables.setdefault(str(dict(attrs)["class"]).split()[0], [])
        elif self._table is not None and tag == "tr":
            self._table.append([])
        elif self._table is not None and tag in ("td", "th"):
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table" and self._table is not None:
            self._table[:] = [[" ".join(cell.split()) for cell in row] for row in self._table]
            self._table = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._table and self._table[-1]:
            self._table[-1][-1] += data


def cards(page: str) -> dict[str, tuple[str, str]]:
    found = re.findall(
        r'class="label">(.*?)</div><div class="value[^>]*>(.*?)</div>\s*<div class="note">(.*?)</div>', page
    )
    return {label: (re.sub("<[^>]*>", "", value), note) for label, value, note in found}


def numbers_in(text: str) -> list[float]:
    return [
        float(one) for one in re.findall(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?", text.replace("−", "-").replace(",", ""))
    ]


def shelve(folder: Path, *records: Record) -> Shelf:
    store = open_store(str(folder))
    for record in records:
        record_opening(store, record)
        store.put(stem(record.key) + ".json", record.model_dump_json().encode())
    return read_shelf(store, "digits")


@pytest.mark.parametrize(
    ("record", "word", "tone"),
    [
        (BETTER, "supported", "good"),
        (WORSE, "refuted", "bad"),
        (UNSURE, "inconclusive", "unsure"),
        (BASE, "baseline", ""),
    ],
)
def test_verdict_is_a_badge_of_its_tone(record: Record, word: str, tone: str) -> None:
    page = attempt_html(record, None if record is BASE else BASE, EMPTY)
    assert f'<span class="badge verdict {tone}">{word}</span>' in page


def test_hypothesis_shows_as_text_and_never_as_markup() -> None:
    page = attempt_html(BETTER, BASE, EMPTY)
    assert "<script" not in page
    assert "<blockquote>&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert ATTACK in Page(page).text


def test_every_text_of_a_user_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    told = BETTER.evaluation.model_copy(update={"classes": [evil, evil]})
    data = BETTER.data.model_copy(update={"source": evil, "target": evil})
    texts = {"run": evil, "params": {"model": evil}, "differs": {"act": (evil, evil)}}
    record = BETTER.model_copy(update={"evaluation": told, "data": data, **texts})
    assert "<img" not in attempt_html(record, BASE, EMPTY)
    assert "<img" not in attempt_markdown(record, BASE)


@pytest.mark.parametrize("record", [BASE, BETTER, PASSED])
def test_page_loads_nothing(record: Record) -> None:
    page = attempt_html(record, BASE, EMPTY)
    tags = Page(page).tags
    assert not {"script", "link", "iframe", "img", "object"} & {tag for tag, _ in tags}
    assert not re.search(r"https?://|@import|url\((?!#)", page)
    assert all(str(attrs.get("href", "#")).startswith("#") and "src" not in attrs for _, attrs in tags)


def test_page_holds_both_colour_schemes_and_no_fixed_colour_in_charts() -> None:
    page = attempt_html(BETTER, BASE, EMPTY)
    assert "@media (prefers-color-scheme: dark)" in page
    drawn = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(drawn) == 5  # interval, three curves, ROC; one record alone makes no chart of the experiment
    assert not [color for svg in drawn for color in re.findall(r"#[0-9a-f]{6}\b", svg)]
    assert all(variable in page for variable in re.findall(r"var\((--[\w-]+)\)", "".join(drawn)))


def test_charts_are_named_and_their_ids_are_unique(tmp_path: Path) -> None:
    tags = Page(attempt_html(PASSED, BASE, shelve(tmp_path, BASE, WORSE))).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for _, attrs in tags if "href" in attrs and attrs["href"]} <= set(ids)
    charts = [attrs for tag, attrs in tags if tag == "svg"]
    assert len(charts) == 6
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)


PERFORMANCE = Performance(
    device=ATTACK,
    seconds=Seconds(total=200.0, data=4.0, compute=180.0, validation=10.0, checkpoint=0.5),
    samples_per_second=12345.4,
    memory_peak_bytes=1288490189,
    gpu_utilisation=87.4,
    energy_joules=12_345.0,
    flops_per_second=31e12,
    peak_share=0.0313,
    peak_precision="bf16",
)
ROWS_OF_ONE = {
    "samples per second": "12,345",
    "time": "200 s: data 2 %, compute 90 %, validation 5 %, checkpoints 0.25 %, other 3 %",
    "memory peak": "1.20 GiB",
    "GPU utilisation": "87.4 %",
    "energy": "12.3 kJ",
    "FLOP/s": "31.0 TFLOP/s, 3 % of this card's bf16 peak",
}


def ran(record: Record, performance: Performance | None) -> Record:
    return record.model_copy(update={"training": record.training.model_copy(update={"performance": performance})})


def test_page_and_summary_tell_how_it_ran_with_every_text_escaped() -> None:
    record = ran(BETTER, PERFORMANCE)
    page, summary = attempt_html(record, BASE, EMPTY), attempt_markdown(record, BASE)
    (_, device), *rows = Page(page).tables["performance"]
    assert dict(rows) == ROWS_OF_ONE
    assert device.split() == ATTACK.split() and "<script>alert" not in page
    assert "## How it ran" in summary and "<script>" not in summary and "&lt;script&gt;" in summary
    for name, value in ROWS_OF_ONE.items():
        assert f"| {name} | {value} |" in summary


def test_show_tells_how_it_ran() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(record_table(ran(BETTER, PERFORMANCE)))
    lines = [
        line.strip().split(maxsplit=1)
        for line in captured.get().splitlines()
        if line.startswith(("  energy", "  time"))
    ]
    assert lines == [["time", ROWS_OF_ONE["time"]], ["energy", ROWS_OF_ONE["energy"]]]


def test_what_is_not_known_of_how_it_ran_has_no_row() -> None:
    boosting = Performance(device="cpu", seconds=Seconds(total=2.5), samples_per_second=80.25)
    assert performance_rows(boosting) == [("device", "cpu"), ("samples per second", "80.250"), ("time", "2.50 s")]


@pytest.mark.parametrize(("device", "unit"), [("NVIDIA L4", "GPUs"), ("cpu", "processes")])
def test_what_was_read_of_one_of_several_says_so(device: str, unit: str) -> None:
    rows = dict(performance_rows(PERFORMANCE.model_copy(update={"processes": 4, "device": device})))
    assert rows[f"memory peak, one of 4 {unit}"] == "1.20 GiB"
    assert rows[f"energy, one of 4 {unit}"] == "12.3 kJ"
    assert rows["FLOP/s"] == "31.0 TFLOP/s, 3 % of these cards' bf16 peak"


def test_record_of_an_older_release_is_read_and_shown_without() -> None:
    document = json.loads(BETTER.model_dump_json())
    del document["training"]["performance"]
    old = Record.model_validate(document)
    assert old == BETTER and old.training.performance is None
    for text in (attempt_html(old, BASE, EMPTY), attempt_markdown(old, BASE)):
        assert "How it ran" not in text


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    shelf = shelve(tmp_path, BASE, WORSE)
    assert attempt_html(PASSED, BASE, shelf) == attempt_html(PASSED, BASE, shelf)


def test_cards_hold_the_figures_of_the_record() -> None:
    comparison = UNSURE.comparison
    assert comparison is not None
    assert comparison.seeds_needed is not None
    shown = {label: numbers_in(" ".join(texts)) for label, texts in cards(attempt_html(UNSURE, BASE, EMPTY)).items()}
    expected = {
        "This attempt": [UNSURE.mean, 1 / 512, 3],
        "Baseline": [BASE.mean, 1 / 512, 3],
        "Difference": [comparison.difference.value, 95, *comparison.interval],
        "Hoped for": [0.01],
        "Judged at": [100 * comparison.level, 2, *comparison.judged_interval],
        "Seeds needed": [comparison.seeds_needed],
        "Floor": [UNSURE.mean * 0.6],
    }
    assert shown == {label: [pytest.approx(value, rel=5e-3) for value in values] for label, values in expected.items()}


def test_means_are_shown_to_five_digits_and_changes_to_three() -> None:
    shown = cards(attempt_html(BETTER, BASE, EMPTY))
    assert shown["This attempt"][0] == "0.95330 ± 0.00195"
    assert shown["Difference"][0] == "+0.0521"


def test_baseline_page_shows_its_noise_and_all_hyperparameters() -> None:
    page = attempt_html(BASE, None, EMPTY)
    assert list(cards(page)) == ["Baseline", "Floor", "Examples"]
    assert Page(page).tables["params"] == [["model", "linear"], ["n_epochs", "20"], ["lr", "0.01"]]
    assert 'aria-label="accuracy of 3 seeds' in page
    assert "this attempt" not in Page(page).text.lower()


def test_differing_table_holds_only_what_differs() -> None:
    rows = Page(attempt_html(BETTER, BASE, EMPTY)).tables["differs"]
    expected = [["model", "linear", "mlp"], ["lr", "0.01", "0.003"], ["n_layers", "–", "2"], ["act", "–", "relu"]]
    assert rows == [["hyperparameter", "baseline", "this attempt"], *expected]


def test_attempt_without_differences_says_so() -> None:
    same = make_record("again", {"accuracy": 0.9, "f1": 0.9, "loss": 0.3}, LINEAR, baseline=BASE)
    assert "No hyperparameter differs." in attempt_html(same, BASE, EMPTY)
    assert "No hyperparameter differs." in attempt_markdown(same, BASE)


def test_metrics_table_compares_every_metric_with_the_baseline() -> None:
    heads, *rows = Page(attempt_html(BETTER, BASE, EMPTY)).tables["metrics"]
    assert heads == ["metric", "baseline", "± seeds", "this attempt", "± seeds", "difference", "floor"]
    assert [row[1:] for row in rows] == [
        ["0.90120", "0.00195", "0.95330", "0.00195", "+0.0521", "0.57198"],
        ["0.89560", "0.00195", "0.94210", "0.00195", "+0.0465", "0.56526"],
        ["0.34560", "0.00195", "0.15770", "0.00195", "−0.188", "0.094620"],
    ]


@pytest.mark.parametrize(
    ("metric", "difference", "expected"),
    [
        ("accuracy", 0.1, "good-text"),
        ("accuracy", -0.1, "bad-text"),
        ("loss", -0.1, "good-text"),
        ("rmse", 0.1, "bad-text"),
        ("rmse", 0.0, ""),
        ("f1", 1e-17, ""),
        ("f1", None, ""),
        ("f1", math.nan, ""),
    ],
)
def test_direction_follows_the_goal_of_the_metric(metric: str, difference: float | None, expected: str) -> None:
    assert direction(metric, difference) == expected


def test_regression_page_turns_better_to_the_left_and_has_no_confusion() -> None:
    page = attempt_html(RMSE, RMSE_BASE, EMPTY)
    assert "← better" in page
    assert 'class="value good-text">−6.00</div>' in page
    assert "Confusion" not in page
    assert "ROC" not in page


@pytest.mark.parametrize(("record", "word"), [(PASSED, "passed"), (FAILED, "not passed")])
def test_gate_shows_the_test_split_once_opened(record: Record, word: str) -> None:
    page = attempt_html(record, BASE, EMPTY)
    shown = cards(page)
    assert f">{word}</span>\nOpening 2 of the test split" in page
    assert shown["This attempt on test"][0] == "0.95200 ± 0.00141"
    assert shown["Baseline on test"][0] == "0.89110"
    assert shown["Difference on test"] == ("+0.0609", "95 % interval +0.0512 to +0.0706")
    assert shown["Champion until then"][0] == ("0.91230" if record is PASSED else "0.96660")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (BASE, "only for an attempt that beats the baseline"),
        (WORSE, "and this one is refuted"),
        (BETTER, "no better on validation than the champion so far"),
        (BETTER.model_copy(update={"data": BETTER.data.model_copy(update={"dataset": "e" * 16})}), "another data set"),
    ],
)
def test_closed_gate_says_why(record: Record, reason: str) -> None:
    assert reason in attempt_html(record, BASE, EMPTY)
    assert reason in attempt_markdown(record, BASE)


def test_history_holds_this_record_once_before_and_after_it_is_stored(tmp_path: Path) -> None:
    before = history(UNSURE, shelve(tmp_path, BASE, BETTER, WORSE))
    after = history(UNSURE, shelve(tmp_path, UNSURE))
    assert (
        [row.id for _, row in before] == [row.id for _, row in after] == [r.id for r in (BASE, BETTER, WORSE, UNSURE)]
    )
    assert [order for order, _ in before] == [1, 2, 3, 4]
    page = Page(attempt_html(UNSURE, BASE, shelve(tmp_path)))
    assert [row[1] for row in page.tables["history"][1:]] == ["baseline ★", "deeper", "worse", "unsure"]


def test_history_begins_with_the_baseline_though_an_attempt_has_the_same_second(tmp_path: Path) -> None:
    early = BETTER.model_copy(update={"id": "r0000000aaaaa"})
    assert [row.attempt for _, row in history(early, shelve(tmp_path, BASE))] == ["baseline", "deeper"]


@pytest.mark.parametrize(
    ("record", "stored", "champion"),
    [
        (BASE, (), "baseline"),
        (BETTER, (BASE,), "baseline"),
        (PASSED, (BASE,), "deeper"),
        (FAILED, (BASE,), "baseline"),
        (PASSED, (BASE, PASSED), "deeper"),
        (WORSE, (BASE, PASSED), "deeper"),
    ],
)
def test_history_marks_the_champion(record: Record, stored: tuple[Record, ...], champion: str, tmp_path: Path) -> None:
    rows = history(record, shelve(tmp_path, *stored))
    assert [row.attempt for _, row in rows if row.champion] == [champion]


def test_an_earlier_record_reads_as_on_its_own_page(tmp_path: Path) -> None:
    tie = make_record("tie", {"accuracy": 0.9823529411764707, "f1": 0.9, "loss": 0.3}, LINEAR, baseline=BASE, minute=1)
    own = Page(attempt_html(tie, BASE, shelve(tmp_path, BASE))).tables["history"][2]
    later = Page(attempt_html(WORSE, BASE, shelve(tmp_path, tie))).tables["history"][2]
    assert own == later


def test_history_table_keeps_whole_names_in_titles(tmp_path: Path) -> None:
    page = attempt_html(BETTER, BASE, shelve(tmp_path, BASE))
    assert [a["title"] for t, a in Page(page).tags if t == "code" and "title" in a] == [BASE.name, BETTER.name]


def test_page_stays_small_with_many_records_epochs_seeds_and_classes(tmp_path: Path) -> None:
    rows = history(BETTER, shelve(tmp_path, BASE, WORSE))
    many = tuple(rows[1][1].__class__(**{**vars(rows[1][1]), "id": f"r1{i:011d}"}) for i in range(3000))
    curve = [math.sin(i) + 2 for i in range(5000)]
    one = Curves(train_loss=curve, validation_loss=curve, validation_metric=curve, lr=curve)
    seeds = [BETTER.training.replicates[0].model_copy(update={"curves": one, "seed": i}) for i in range(40)]
    told = BETTER.evaluation.model_copy(
        update={
            "classes": [f"class {i}" for i in range(100)],
            "confusion": [[i + j for j in range(100)] for i in range(100)],
        }
    )
    training = BETTER.training.model_copy(update={"replicates": seeds})
    record = BETTER.model_copy(update={"training": training, "evaluation": told})
    page = attempt_html(record, BASE, Shelf("digits", (rows[0][1], *many), ()))
    assert len(page.encode()) < 500_000
    assert "newest 100 of 3,002 records" in page


def test_confusion_shades_hits_and_errors_by_their_share_of_the_row() -> None:
    rows = Page(attempt_html(BETTER, BASE, EMPTY)).tables["confusion"]
    assert rows == [["", "no", "yes"], ["no", "180", "20"], ["yes", "3", "197"]]
    shades = [a["class"] for t, a in Page(attempt_html(BETTER, BASE, EMPTY)).tags if t == "td" and "class" in a]
    assert [shade for shade in shades if shade and re.fullmatch("[he][1-9]", shade)] == ["h9", "e3", "e2", "h9"]


def test_constant_baseline_is_a_level_line_and_alone_has_no_curves() -> None:
    flat = Curves(train_loss=[], validation_loss=[0.7], validation_metric=[0.5], lr=[])
    replicates = [one.model_copy(update={"curves": flat, "n_epochs": 0}) for one in BASE.training.replicates]
    constant = BASE.model_copy(update={"training": BASE.training.model_copy(update={"replicates": replicates})})
    assert "Learning curves" not in attempt_html(constant, None, EMPTY)
    assert "Learning curves" in attempt_html(BETTER, constant, EMPTY)


def test_diverged_values_leave_no_nan_in_the_page() -> None:
    broken = Curves(
        train_loss=[1.0, math.nan, math.inf], validation_loss=[math.nan] * 4, validation_metric=[math.nan] * 4, lr=[]
    )
    seed = BETTER.training.replicates[0].model_copy(update={"curves": broken, "ended": "diverged"})
    told = BETTER.evaluation
    bad = told.model_copy(
        update={"metrics": told.metrics | {"loss": math.nan}, "spread": told.spread | {"loss": math.nan}}
    )
    training = BETTER.training.model_copy(update={"replicates": [seed] * 3})
    record = BETTER.model_copy(update={"training": training, "evaluation": bad})
    text = attempt_html(record, BASE, EMPTY)
    assert not re.search(r"\bnan\b|\binf\b", text, flags=re.IGNORECASE)
    assert '<span class="badge bad">diverged</span>' in text


def test_provenance_holds_what_the_record_knows() -> None:
    text = Page(attempt_html(BETTER, BASE, EMPTY)).text
    facts = [BETTER.name, BETTER.key, "run-1", "2026-01-01 12:01:00 UTC", "sklearn:digits", "f" * 16, "d" * 16]
    facts += ["train 1,000, validation 400, test 397", "1,234 parameters", "cpu", "torch 2.0", "a" * 64, "b" * 64]
    assert [fact for fact in facts if fact not in text] == []
    assert Page(attempt_html(BETTER, BASE, EMPTY)).tables["seeds"][1] == ["0", "0.95135", "12", "7", "early", "1.25"]


def test_markdown_tables_are_whole_and_hold_no_markup() -> None:
    text = attempt_markdown(PASSED, BASE)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(lines) for lines in blocks] == [2 + 4, 2 + 3]
    for lines in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        assert re.fullmatch(r"\| ---( \| -+:)+ \|", lines[1])
    assert not re.search(r"<(?!!--)|(?<!\\)\*bold", text)


def test_markdown_says_verdict_hypothesis_gate_and_name() -> None:
    text = attempt_markdown(PASSED, BASE)
    assert text.startswith("# digits: deeper\n\n**Supported.** accuracy is ")
    assert '\n> &lt;script&gt;alert\\(1\\)&lt;/script&gt; &amp; "quoted" \\| \\*bold\\* second line\n' in text
    assert "Gate **passed**: test accuracy 0.95200, baseline 0.89110, difference +0.0609" in text
    assert text.endswith(f"Record: `{PASSED.name}`\n")


def test_markdown_of_a_baseline_lists_its_hyperparameters() -> None:
    text = attempt_markdown(BASE, None)
    assert "**Baseline.** accuracy is 0.90120 ± 0.00195 over 3 seeds" in text
    assert "| lr | 0.01 |" in text
    assert "| metric | mean | ± seeds | floor |" in text


def test_deciding_metric_comes_first_and_shows_the_judged_difference() -> None:
    first = metric_lines(RMSE, RMSE_BASE)[0]
    assert RMSE.comparison is not None
    assert (first.name, first.difference) == ("rmse", RMSE.comparison.difference.value)


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (number, 0.9823529, "0.98235"),
        (number, 0.98235, "0.98235"),
        (number, 2702.14, "2,702.1"),
        (number, 98.1, "98.100"),
        (number, 99999.6, "100,000"),
        (number, 1234567.0, "1,234,600"),
        (number, 1.5e-05, "1.5000e−05"),
        (number, -0.25, "−0.25000"),
        (number, 0.0, "0"),
        (number, 6.8e-17, "0"),
        (number, 12345, "12,345"),
        (number, math.nan, "–"),
        (number, -math.inf, "−∞"),
        (number, None, "–"),
        (change, 0.0051877, "0.00519"),
        (signed, 0.0314, "+0.0314"),
        (signed, -0.0085, "−0.00850"),
        (signed, 0.0, "0"),
        (signed, None, "–"),
        (between, (-0.019, 0.002), "−0.0190 to +0.00200"),
        (confidence, 0.975, "97.5 %"),
        (confidence, 1 - 0.05 / 930, "99.9946 %"),
        (setting, True, "true"),
        (setting, 1e-4, "0.0001"),
        (setting, None, "–"),
    ],
)
def test_numbers_read_as_a_person_writes_them(write: Callable[[Any], str], value: Any, expected: str) -> None:
    assert write(value) == expected
