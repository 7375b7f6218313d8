"""The report of an experiment: what it tells, and how it behaves in a real browser."""

import html
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from basekamp.errors import InputError
from basekamp.records.record import Record
from basekamp.records.shelf import RECORD, stem
from basekamp.records.story import read_story
from basekamp.report.attempt import attempt_html
from basekamp.report.experiment import experiment_html
from basekamp.storage import Store, open_store
from tests.browser import Page, start_browser
from tests.made_records import ATTACK, BASE, BETTER, EMPTY, MLP, make_record

BASEKAMP = Path(sys.executable).with_name("basekamp")
HOSTILE = "</script><script>document.title='taken'</script><img src=http://127.0.0.1:9/x>"


def attempts(number: int) -> list[Record]:
    """Attempts whose accuracy depends on the learning rate alone."""
    chance, made = random.Random(1), []
    for i in range(number):
        lr = round(10 ** chance.uniform(-4, -1), 6)
        params = MLP | {"lr": lr, "n_layers": chance.randint(1, 4), "act": chance.choice(["relu", "gelu"])}
        accuracy = 0.9 + 0.03 * (1 - abs(math.log10(lr) + 2.5)) + chance.gauss(0, 0.001)
        means = {"accuracy": accuracy, "f1": 0.9, "loss": 1 - accuracy}
        made.append(make_record(f"try-{i:02}", means, params, baseline=BASE, minute=i % 60, hypothesis=HOSTILE))
    return made


def store_of(folder: Path, records: list[Record]) -> Store:
    store = open_store(str(folder / "store"))
    for record in records:
        store.put(stem(record.key) + RECORD, record.model_dump_json().encode())
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_of(tmp_path_factory.mktemp("experiment"), [BASE, *attempts(40)])


@pytest.fixture(scope="module")
def page(store: Store) -> str:
    return experiment_html(read_story(store, "digits"))


def table_of(page: str) -> list[list[str]]:
    body = page[page.index('id="records"') :].partition("</tbody>")[0]
    lines = re.findall(r"<tr.*?</tr>", body, re.DOTALL)
    return [
        [html.unescape(re.sub("<.*?>", "", cell)) for cell in re.findall(r"<td.*?</td>", line)] for line in lines[1:]
    ]


def test_page_lists_the_baseline_then_the_best_first_each_with_its_hypothesis(page: str) -> None:
    lines = table_of(page)
    values = [float(line[2]) for line in lines]
    assert len(lines) == 41 and lines[0][0].startswith("baseline") and values[1:] == sorted(values[1:], reverse=True)
    assert all(HOSTILE in line for line in lines[1:])
    assert {line[1] for line in lines} <= {"baseline", "supported", "refuted", "inconclusive"}


def test_page_says_what_mattered(page: str) -> None:
    mattered = page.partition("What mattered")[2].partition("Every verdict")[0]
    shares = dict(re.findall(r"<td>(\w+)</td>.*?([\d.]+) %</td>", mattered))
    assert list(shares)[0] == "lr" and float(shares["lr"]) > 90


def test_page_is_one_small_file_that_escapes_all_and_names_no_address(page: str, store: Store) -> None:
    assert page == experiment_html(read_story(store, "digits"))
    assert len(page) < 1_500_000 and page.count("<script") == 1 and "<img" not in page
    assert not re.search(r"(?:src|href)=\"(?!#)|url\((?!#)|@import|fetch\(|localStorage", page)


def test_few_records_make_a_page_without_what_cannot_be_told(tmp_path: Path) -> None:
    page = experiment_html(read_story(store_of(tmp_path, [BASE]), "digits"))
    assert "Nothing has beaten the baseline yet" in page and "Too few records" in page and 'id="parallel"' not in page
    both = experiment_html(read_story(store_of(tmp_path, [BASE, BETTER]), "digits"))
    assert html.escape(" ".join(ATTACK.split()), quote=False) in both.replace("&#34;", '"')


def test_experiment_without_a_baseline_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing has no baseline"):
        read_story(store, "nothing")
    done = subprocess.run([BASEKAMP, "report", "nothing", "--store", store.url], capture_output=True, text=True)
    assert done.returncode == 2 and "make one with `basekamp run FILE`" in done.stderr


def test_command_writes_the_page_where_it_is_told_to(store: Store, tmp_path: Path, page: str) -> None:
    command = [BASEKAMP, "report", "digits", "--store", store.url, "-o", tmp_path / "it.html"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "41 records" in done.stdout and (tmp_path / "it.html").read_text() == page


# -- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with start_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def opened(browser: Page, page: str, tmp_path: Path) -> Page:
    (tmp_path / "page.html").write_text(page)
    browser.media()
    browser.size(1200, 900)
    return browser.open(tmp_path / "page.html")


COLUMN = "[...document.querySelectorAll('#records tbody tr:not(.off)')].map(row => row.cells[%d].dataset.value)"


def test_click_on_a_heading_sorts_up_then_down_with_missing_values_last(opened: Page) -> None:
    heads = opened.run("[...document.querySelectorAll('#records th')].map(head => head.textContent)")
    for name in ("accuracy", "lr", "difference"):
        at = heads.index(name)
        for sign in (1, -1):
            opened.run(f"document.querySelectorAll('#records th button')[{at}].click()")
            told = [float(value) if value else None for value in opened.run(COLUMN % at)]
            known = [value for value in told if value is not None]
            assert known == sorted(known, reverse=sign < 0) and told[: len(known)] == known and len(told) == 41


def test_brushing_an_axis_hides_lines_and_rows_and_a_click_lets_go(opened: Page) -> None:
    opened.run("document.getElementById('parallel').scrollIntoView()")
    x, top, bottom = opened.run(
        "(() => { const box = [...document.querySelectorAll('.axis')].at(-1).getBoundingClientRect();"
        " return [box.left, box.top, box.bottom]; })()"
    )
    middle = (top + bottom) / 2
    opened.drag((x, top + 1), (x, middle))
    values = [float(value) for value in opened.run(COLUMN % 2)]
    every = [float(value) for value in opened.run(COLUMN.replace(":not(.off)", "") % 2)]
    half = (max(every) + min(every)) / 2
    assert 0 < len(values) < len(every) == 41
    assert min(values) == pytest.approx(min(value for value in every if value >= half), abs=0.002)
    shown = opened.run("document.querySelectorAll('#parallel polyline:not(.off)').length")
    assert shown == len(values) and opened.run("document.getElementById('brushed').textContent").startswith(
        f"{shown} of 41"
    )
    opened.drag((x, middle), (x, middle))
    assert len(opened.run(COLUMN % 2)) == 41


def test_dark_mode_changes_the_page(opened: Page) -> None:
    color = "getComputedStyle(document.body).backgroundColor"
    light = opened.run(color)
    opened.media(prefers_color_scheme="dark")
    assert opened.run(color) != light == "rgb(246, 247, 249)"


def test_nothing_is_fetched_and_nothing_complained_of(opened: Page) -> None:
    assert opened.requests == [] and opened.complaints == []
    assert opened.run("document.title") == "digits"


def test_page_works_in_the_sandboxed_frame_of_kubeflow(browser: Page, page: str, tmp_path: Path) -> None:
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(page)}" width="900" height="700"></iframe>'
    (tmp_path / "outer.html").write_text(f"<!doctype html><title>outer</title>{frame}")
    browser.media()
    browser.size(1200, 900)
    opened = browser.open(tmp_path / "outer.html")
    assert [one for one in opened.requests if not one.startswith("about:")] == [] and opened.complaints == []
    assert opened.run("document.title") == "outer"


@pytest.mark.parametrize("kind", ["experiment", "attempt"])
def test_phone_has_no_horizontal_scroll_and_print_has_every_part(
    browser: Page, page: str, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "page.html").write_text(page if kind == "experiment" else attempt_html(BETTER, BASE, EMPTY))
    browser.media()
    browser.size(390, 800)
    opened = browser.open(tmp_path / "page.html")
    assert opened.run("document.documentElement.scrollWidth") <= 390
    opened.media("print")
    opened.size(800, 1000)
    hidden = "[...document.querySelectorAll('h2')].filter(head => head.getBoundingClientRect().height === 0).length"
    assert opened.run(hidden) == 0 and opened.run("document.querySelectorAll('h2').length") >= 4
    assert opened.complaints == []
