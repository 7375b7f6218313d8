"""The name grammar, by table and by property."""

import enum
import math
import re
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from basekamp.errors import InputError
from basekamp.naming import MAX_BYTES, Name, format_name, id_digest, new_id, parse_name

SAFE = re.compile(r"[A-Za-z0-9_%+][A-Za-z0-9_.+%-]*\.[A-Za-z][A-Za-z0-9_]*")
BOOK = "model.n_layers-10.n_epochs-100.act-leaky_relu.loss-0.0312.accuracy-98.1.pth"

TRICKY = """
0 -0 7 -3 007 1.5 -0.5 1. .5 1e5 1E5 1e-05 1.5e-05 1e+16 -1e3 nan inf -inf NaN true false True False None
%41 %2E % %% 98% . .. ... - -- -x a.b a..b a.b-c .a a. a.lr-3 1.lr-3 v1.2 a.id-r0w3k9xq7ab1c r0w3k9xq7ab1c
abcdefgh 3more 0more 12345678901more cut-3more id-abcdefgh ../x / \\ a/b leaky_relu key- x.pth é.b 模型 é.a-b
"""
UNPRINTABLE = ["", " ", "a b", "\0", "a\r\nb", "\n", "a.\n", "\u202eabc", "\x7f", "\x85", "\u2028"]
tricky = st.sampled_from([*TRICKY.split(), *UNPRINTABLE, "9" * 60])
pieces = st.text(alphabet=".-%/_+ab1eé\n", max_size=8)
texts = st.one_of(tricky, pieces, st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
keys = st.one_of(
    st.sampled_from(["id", "cut", "lr", "act", "_", "E", "nan", "true", "pth"]),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True),
)
values = st.one_of(st.booleans(), st.integers(), st.floats(), texts)
ids = st.from_regex(r"[a-z][0-9a-z]{7,15}", fullmatch=True)
names = st.builds(
    Name,
    model=texts.filter(bool),
    fields=st.dictionaries(keys, values, max_size=3),
    extension=st.sampled_from(["pth", "json", "safetensors", "h5", "c_1"]),
    id=st.none() | ids,
    cut=st.just(0) | st.integers(0, 999),
)
many = st.builds(
    Name,
    model=texts.filter(bool),
    fields=st.lists(values, min_size=40, max_size=45).map(
        lambda drawn: dict(zip(["lr", "cut", "id", *(f"k{n}" for n in range(42))], drawn, strict=False))
    ),
    id=ids,
    cut=st.integers(0, 99),
)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine is shared


def typed(name: Name) -> tuple:
    """Compare values with their types, their order and the sign of zero; nan equals nan."""
    fields = [(key, type(value), repr(value)) for key, value in name.fields.items()]
    return name.model, fields, name.extension, name.id, name.cut


def test_parse_book_example_gives_typed_values():
    assert typed(parse_name(BOOK)) == typed(
        Name(
            "model",
            {"n_layers": 10, "n_epochs": 100, "act": "leaky_relu", "loss": 0.0312, "accuracy": 98.1},
        )
    )
    assert format_name(parse_name(BOOK)) == BOOK


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model.n_layers-10.n_epochs-100.act-leaky_relu.loss-xxx.accuracy-xx.pth",
            Name(
                "model",
                {"n_layers": 10, "n_epochs": 100, "act": "leaky_relu", "loss": "xxx", "accuracy": "xx"},
            ),
        ),
        ("model.pth", Name("model")),
        ("best.ckpt", Name("best", extension="ckpt")),
        ("model.tar.gz", Name("model.tar", extension="gz")),
        ("resnet-50.v1.5.lr-0.1.pt", Name("resnet-50.v1.5", {"lr": 0.1}, "pt")),
        ("id-abcdefgh.pth", Name("id-abcdefgh")),
        ("m.lr--3.pth", Name("m", {"lr": -3})),
        ("m.lr-1.5e-05.wd-1e-05.k--1.5e+3.pth", Name("m", {"lr": 1.5e-05, "wd": 1e-05, "k": -1500.0})),
        ("m.a-true.b-False.c-yes.pth", Name("m", {"a": True, "b": False, "c": "yes"})),
        (
            "m.a-nan.b-inf.c--inf.d-NaN.pth",
            Name("m", {"a": math.nan, "b": math.inf, "c": -math.inf, "d": "NaN"}),
        ),
        (
            "m.a-007.b--0.c--0.0.d-1..e-.pth",
            Name("m", {"a": "007", "b": "-0", "c": -0.0, "d": "1.", "e": ""}),
        ),
        (
            "m.a-98%.b-%zz.c-%FF.d-%41.e-%c3%a9.pth",
            Name("m", {"a": "98%", "b": "%zz", "c": "%FF", "d": "A", "e": "é"}),
        ),
        ("modèle.Épochs-3.act-é.pth", Name("modèle.Épochs-3", {"act": "é"})),
        ("m.data-v1.2.lr-3.pth", Name("m", {"data": "v1.2", "lr": 3})),
        ("m.id-abcdefgh.lr-3.pth", Name("m", {"id": "abcdefgh", "lr": 3})),
        ("m.cut-3more.lr-3.pth", Name("m", {"cut": "3more", "lr": 3})),
        ("m.lr-3.cut-3more.pth", Name("m", {"lr": 3}, cut=3)),
        ("m.lr-3.cut-12more.id-r0w3k9xq7ab1c.json", Name("m", {"lr": 3}, "json", "r0w3k9xq7ab1c", 12)),
        ("m.id-short.pth", Name("m", {"id": "short"})),
        (
            "m.big-" + "9" * 255 + ".huge-" + "9" * 256 + ".pth",
            Name("m", {"big": 10**255 - 1, "huge": "9" * 256}),
        ),
    ],
)
def test_parse_legacy_and_foreign_names_give_typed_values(text, expected):
    assert typed(parse_name(text)) == typed(expected)


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"a": True, "b": False, "n": -3}, "a-true.b-false.n--3"),
        ({"a": 1e16, "b": 1e-05, "c": 1.0, "d": -0.0, "e": math.nan}, "a-1e16.b-1e-05.c-1.0.d--0.0.e-nan"),
        (
            {"a": "1e16", "b": "10", "c": "-5", "d": "true", "e": "nan"},
            "a-%31e16.b-%310.c-%2D5.d-%74rue.e-%6Ean",
        ),
        (
            {"a": "v1.2", "b": "a.b-c", "c": "a..b", "d": ".a", "e": "a."},
            "a-v1.2.b-a%2Eb-c.c-a%2E.b.d-%2Ea.e-a%2E",
        ),
        ({"a": "a/b", "b": "é", "c": "1 %", "d": "a+b", "e": ""}, "a-a%2Fb.b-%C3%A9.c-1%20%25.d-a+b.e-"),
        ({"id": "abcdefgh", "cut": "3more", "x": "abcdefgh"}, "id-%61bcdefgh.cut-%33more.x-abcdefgh"),
        ({"id": "short", "cut": "more"}, "id-short.cut-more"),
        ({"a": "..", "b": "../x"}, "a-%2E%2E.b-%2E.%2Fx"),
    ],
)
def test_format_writes_one_canonical_form(fields, written):
    assert format_name(Name("m", fields)) == f"m.{written}.pth"
    assert typed(parse_name(f"m.{written}.pth")) == typed(Name("m", fields))


@pytest.mark.parametrize(
    ("model", "written"),
    [
        ("resnet-50.v1.5", "resnet-50.v1.5"),
        ("resnet.v-5", "resnet%2Ev-5"),
        ("-rf", "%2Drf"),
        (".hidden", "%2Ehidden"),
        ("..", "%2E%2E"),
        ("my/model", "my%2Fmodel"),
        ("10", "10"),
        ("a.", "a%2E"),
    ],
)
def test_format_model_stays_readable_where_it_is_safe(model, written):
    assert format_name(Name(model, {"lr": 1}, id="abcdefgh")) == f"{written}.lr-1.id-abcdefgh.pth"


def test_parse_aliases_rename_keys():
    assert list(parse_name(BOOK, aliases={"act": "act_func"}).fields)[2] == "act_func"
    assert parse_name(BOOK, aliases={"depth": "n_layers"}) == parse_name(BOOK)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not a record's name: use model.key-value.extension."),
        ("model", "'model' is not a record's name: use model.key-value.extension."),
        (".pth", "'.pth' begins with '.', a hidden file: a name begins with its model."),
        (".lr-3.pth", "'.lr-3.pth' begins with '.', a hidden file: a name begins with its model."),
        (
            "m.lr-0.5",
            "'m.lr-0.5' ends in '5', "
            "which is no extension: end the name in '.' and letters, digits or '_', such as .pth.",
        ),
        (
            "m.lr-3",
            "'m.lr-3' ends in 'lr-3', "
            "which is no extension: end the name in '.' and letters, digits or '_', such as .pth.",
        ),
        (
            "m.pth\n",
            "'m.pth\\n' holds the character '\\n', which no name may hold: "
            "rename the file without control characters and broken Unicode.",
        ),
        (
            "m.\0.pth",
            "'m.\\x00.pth' holds the character '\\x00', which no name may hold: "
            "rename the file without control characters and broken Unicode.",
        ),
        (
            "m\ud800.pth",
            "'m\\ud800.pth' holds the character '\\ud800', which no name may hold: "
            "rename the file without control characters and broken Unicode.",
        ),
        ("runs/m.pth", "'runs/m.pth' is a path: give the file name alone, what follows the last '/'."),
        ("m.a-1.a-2.pth", "'m.a-1.a-2.pth' gives the key 'a' more than once: keep one of them."),
        (
            "é" * 600 + ".pth",
            "'" + "\\xe9" * 14 + "\\xe… is over 1,024 bytes: no file has such a name, give a shorter one.",
        ),
        (
            "m" * 1021 + ".pth",
            "'" + "m" * 59 + "… is over 1,024 bytes: no file has such a name, give a shorter one.",
        ),
    ],
)
def test_parse_refuses_with_one_sentence(text, message):
    with pytest.raises(InputError) as caught:
        parse_name(text)
    assert str(caught.value) == message


def test_parse_refuses_key_doubled_by_alias():
    with pytest.raises(InputError, match="gives the key 'act_func' more than once"):
        parse_name("m.act-relu.act_func-relu.pth", aliases={"act": "act_func"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (Name(""), "The model name '' is not allowed: use a string that is not empty."),
        (Name(None), "The model name None is not allowed: use a string that is not empty."),
        (
            Name("m", extension="tar.gz"),
            "The extension 'tar.gz' is not allowed: use letters, digits and '_', beginning with a letter, such as pth.",
        ),
        (
            Name("m", id="Run 1"),
            "The id 'Run 1' is not allowed: use 8 to 16 lower-case letters and digits, a letter first.",
        ),
        (Name("m", cut=-1), "cut=-1 is not allowed: use an integer from 0 to 999,999,999 with the fields."),
        (
            Name("m", cut=True),
            "cut=True is not allowed: use an integer from 0 to 999,999,999 with the fields.",
        ),
        (
            Name("m", {"learn-rate": 1}),
            "The key 'learn-rate' is not allowed: use letters, digits and '_', not beginning with a digit.",
        ),
        (
            Name("m", {3: 1}),
            "The key 3 is not allowed: use letters, digits and '_', not beginning with a digit.",
        ),
        (
            Name("m", {"é": 1}),
            "The key '\\xe9' is not allowed: use letters, digits and '_', not beginning with a digit.",
        ),
        (
            Name("m", {"a": None}),
            "The field 'a' is None, a NoneType: use true or false, an integer, a float or a string.",
        ),
        (
            Name("m", {"a": [1]}),
            "The field 'a' is [1], a list: use true or false, an integer, a float or a string.",
        ),
        (
            Name("m", {"a": b"x"}),
            "The field 'a' is b'x', a bytes: use true or false, an integer, a float or a string.",
        ),
        (
            Name("m", {"a": np.array([1])}),
            "The field 'a' is array([1]), a ndarray: use true or false, an integer, a float or a string.",
        ),
        (
            Name("m", {"a": "x\udcff"}),
            "'x\\udcff' holds half of a surrogate pair, which no name can carry: use whole characters.",
        ),
        (
            Name("\ud800"),
            "'\\ud800' holds half of a surrogate pair, which no name can carry: use whole characters.",
        ),
        (
            Name("m" * 252),
            f"The model name '{'m' * 59}… takes 252 bytes and leaves no room"
            " in a file name of 255: shorten it by 1 or more.",
        ),
        (
            Name("m" * 251, {"a": 1}),
            f"The model name '{'m' * 59}… takes 251 bytes and leaves no room"
            " in a file name of 255: shorten it by 10 or more.",
        ),
    ],
)
def test_format_refuses_with_one_sentence(name, message):
    with pytest.raises(InputError) as caught:
        format_name(name)
    assert str(caught.value) == message


def test_format_model_of_251_bytes_fits():
    assert len(format_name(Name("m" * 251))) == MAX_BYTES


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (np.float64(0.1), "0.1"),
        (np.float32(0.5), "0.5"),
        (np.int64(-3), "-3"),
        (np.bool_(True), "true"),
        (np.str_("relu"), "relu"),
        (np.array(2), "2"),
        (enum.Enum("Width", {"SMALL": 64}, type=int).SMALL, "64"),
        (enum.Enum("Act", {"RELU": "relu"}, type=str).RELU, "relu"),
    ],
)
def test_format_scalar_subclasses_are_written_as_python_values(value, written):
    assert format_name(Name("m", {"a": value})) == f"m.a-{written}.pth"


@unhurried
@given(names)
@example(Name("a.id-abcdefgh", {"id": "abcdefgh", "cut": "3more"}))
@example(Name("m", {"lr": "x.id-abcdefgh"}))
def test_parse_of_format_is_the_same_name(name):
    written = format_name(name)
    if parse_name(written).cut == name.cut:
        assert typed(parse_name(written)) == typed(name)
    else:
        assert len(written) > MAX_BYTES - 150


@unhurried
@given(st.dictionaries(keys, values, max_size=2), texts.filter(bool))
def test_format_of_small_names_cuts_nothing(fields, model):
    name = Name(model[:4], {key: value[:4] if isinstance(value, str) else value for key, value in fields.items()})
    assert typed(parse_name(format_name(name))) == typed(name)


@unhurried
@given(st.one_of(names, many), st.sets(keys, max_size=5))
def test_format_is_safe_short_and_stable(name, first):
    written = format_name(name, first=first)
    assert SAFE.fullmatch(written) and ".." not in written
    assert len(written.encode()) <= MAX_BYTES
    assert format_name(parse_name(written)) == written


@unhurried
@given(many, st.data())
def test_format_of_forty_fields_keeps_a_counted_subset(name, data):
    first = set(data.draw(st.lists(st.sampled_from(list(name.fields)), max_size=5)))
    read = parse_name(format_name(name, first=first))
    assert read.model == name.model and read.id == name.id
    assert read.cut == name.cut + len(name.fields) - len(read.fields)
    kept = {key: value for key, value in name.fields.items() if key in read.fields}
    assert typed(replace(read, cut=0)) == typed(replace(name, fields=kept, cut=0))


@unhurried
@given(st.permutations([f"k{number:02}" for number in range(40)]), st.data())
def test_format_cuts_from_the_end_and_keeps_first(order, data):
    first = set(data.draw(st.lists(st.sampled_from(order), max_size=12)))
    read = parse_name(format_name(Name("m", dict.fromkeys(order, 1234), id="abcdefgh"), first=first))
    places = len(read.fields)
    assert places == 25
    wanted = first | set([key for key in order if key not in first][: places - len(first)])
    assert list(read.fields) == [key for key in order if key in wanted]


def test_format_passes_over_a_value_that_fits_nowhere():
    fields = {"note": "x" * 10_000, "lr": 0.1, "seed": 10**5000, "loss": 0.5}
    assert format_name(Name("m", fields), first={"note", "loss"}) == "m.lr-0.1.loss-0.5.cut-2more.pth"


def test_format_again_adds_up_the_cuts():
    once = parse_name(format_name(Name("m", {"a": 1, "b": "x" * 300})))
    again = parse_name(format_name(replace(once, fields={**once.fields, "c": "y" * 300})))
    assert (once.cut, again.cut) == (1, 2)


@pytest.mark.parametrize(
    "value",
    [
        "../../etc/passwd",
        "a\0b",
        "a\r\nb",
        "\u202egpj.exe",
        "\\..\\",
        "x" * 10_000,
        "\U0001f40d" * 99,
        "~",
        "$(x)",
    ],
)
def test_format_hostile_text_never_escapes(value):
    for name in (Name("m", {"a": value}), Name(value[:20], {"a": value})):
        written = format_name(name)
        assert SAFE.fullmatch(written) and ".." not in written and len(written) <= MAX_BYTES


@unhurried
@given(st.text(max_size=20) | st.text(string.ascii_letters[:4] + ".-%19e_é/", max_size=20))
def test_parse_of_any_text_refuses_or_round_trips(text):
    for candidate in (text, f"m.{text}.pth"):
        try:
            name = parse_name(candidate)
        except InputError:
            continue
        assert typed(parse_name(format_name(name))) == typed(name)


@unhurried
@given(st.text())
def test_parse_refusal_of_any_text_is_one_printable_line(text):
    with pytest.raises(InputError) as caught:
        parse_name(f"{text}/")
    assert str(caught.value).replace("…", "").isascii() and str(caught.value).isprintable()


@unhurried
@given(st.lists(st.datetimes(datetime(2020, 1, 1), datetime(2053, 12, 31), timezones=st.just(UTC)), min_size=2))
def test_new_id_sorts_by_time(times):
    stamps = [new_id(when.replace(microsecond=0), "run")[:7] for when in sorted(times)]
    assert stamps == sorted(stamps)


@unhurried
@given(st.datetimes(datetime(2020, 1, 1), datetime(2053, 12, 31), timezones=st.just(UTC)), st.text())
def test_new_id_is_read_back_from_a_name(when, run):
    record_id = new_id(when, run)
    assert len(record_id) == 13 and record_id[0] == "r"
    assert parse_name(format_name(Name("m", id=record_id))).id == record_id


def test_new_id_of_known_moment_and_zone():
    when = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert new_id(when, "run-1") == new_id(when.astimezone(timezone(timedelta(hours=9))), "run-1")
    assert new_id(datetime(2020, 1, 1, 0, 0, 33, tzinfo=UTC), "run-1") == "r0000119sjx7y"


def test_id_digest_of_a_retry_is_the_same():
    first, retry, other = (
        new_id(datetime(2026, 1, day, tzinfo=UTC), run) for day, run in [(1, "a"), (2, "a"), (3, "b")]
    )
    assert first < retry < other
    assert id_digest(first) == id_digest(retry) == first[7:] != id_digest(other)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        (
            datetime(2026, 1, 1),
            "The time 2026-01-01T00:00:00 has no time zone: give one, such as datetime.now(UTC).",
        ),
        (
            datetime(2019, 12, 31, tzinfo=UTC),
            "The time 2019-12-31T00:00:00+00:00 is out of range, 2020 to 2053: set this machine's clock.",
        ),
        (
            datetime(2055, 1, 1, tzinfo=UTC),
            "The time 2055-01-01T00:00:00+00:00 is out of range, 2020 to 2053: set this machine's clock.",
        ),
    ],
)
def test_new_id_refuses_with_one_sentence(when, message):
    with pytest.raises(InputError) as caught:
        new_id(when, "run")
    assert str(caught.value) == message


def test_id_digest_refuses_what_is_no_id():
    with pytest.raises(InputError, match="The id 'x' is not allowed: use 8 to 16 lower-case letters"):
        id_digest("x")
