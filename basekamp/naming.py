"""The name grammar: a file name that carries model, hyperparameters, metrics and a short id.

    mlp.n_layers-10.act-leaky_relu.lr-1.5e-05.loss-0.0312.cut-3more.id-r0w3k9xq7ab1c.pth
    model  fields, in order ..................................  cut   id              extension

A '.' before `key-` begins a field and the text after the last '.' is the extension; every other '.'
belongs to the model or the value it stands in. `cut-<N>more` counts fields left out for want of room.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from basekamp.errors import InputError

Value = bool | int | float | str

MAX_BYTES = 255  # what ext4, XFS, APFS and NTFS allow one file name
_MAX_READ_BYTES = 1024
_MAX_CUT = 999_999_999  # nine digits, as `CUT` reads

_KEY = r"[A-Za-z_][A-Za-z0-9_]*"
FIELD_START = re.compile(rf"\.({_KEY})-")
_WHOLE_KEY = re.compile(_KEY)
_EXTENSION = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
ID = re.compile(r"[a-z][0-9a-z]{7,15}")
CUT = re.compile(r"([0-9]{1,9})more")
# The bound on digits stays under every limit that Python can set on reading integers.
NUMBER = re.compile(
    r"(0|-?[1-9][0-9]{0,254})|(-?[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))",
)
_REFUSED = re.compile(r"[/\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ESCAPES = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_UNSAFE = re.compile(rf"[^A-Za-z0-9_.+-]+|\A\.|\.(?=\.|\Z|{_KEY}-)")
WORDS: dict[str, Value] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
}

_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_EXAMPLE = '{"model": "mlp", "fields": {"n_layers": 3}, "extension": "pth"}'
_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o, u
_OWN_ID = re.compile(rf"r[{_BASE32}]{{12}}")


@dataclass(frozen=True)
class Name:
    """One record's name, taken apart; `cut` counts the fields that the name had no room for."""

    model: str
    fields: dict[str, Value] = field(default_factory=dict)
    extension: str = "pth"
    id: str | None = None
    cut: int = 0


def parse_name(text: str, *, aliases: Mapping[str, str] | None = None) -> Name:
    """Read a file name (not a path), ours or a legacy one without id; values get their types back.

    `aliases` renames keys on reading: `{"act": "act_func"}`. A '%' that begins no valid UTF-8 escape
    is kept as it stands.

    Raises:
        InputError: the text is a path, hidden, over 1,024 bytes, without extension, repeats a key, or
            holds control characters or broken Unicode.

    """
    _check_text(text)
    body, _, extension = text.rpartition(".")
    if not body:
        raise InputError(f"{_show(text)} is not a record's name: use model.key-value.extension.")
    if not _EXTENSION.fullmatch(extension):
        raise InputError(
            f"{_show(text)} ends in {_show(extension)}, which is no extension: "
            "end the name in '.' and letters, digits or '_', such as .pth."
        )
    pieces = FIELD_START.split(body)
    keys, values = pieces[1::2], pieces[2::2]
    record_id, cut = None, 0
    if keys and keys[-1] == "id" and ID.fullmatch(values[-1]):
        del keys[-1]
        record_id = values.pop()
    if keys and keys[-1] == "cut" and (match := CUT.fullmatch(values[-1])):
        del keys[-1], values[-1]
        cut = int(match[1])
    if aliases:
        keys = [aliases.get(key, key) for key in keys]
    fields = dict(zip(keys, map(read_value, values), strict=True))
    if len(fields) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"{_show(text)} gives the key {twice!r} more than once: keep one of them.")
    return Name(unescape(pieces[0]), fields, extension, record_id, cut)


def format_name(name: Name, *, first: Collection[str] = ()) -> str:
    """Write the one canonical file name: ASCII, at most 255 bytes, read back exactly by `parse_name`.

    When not all fields fit, those in `first` are placed before the others, each group in the name's
    order, and what finds no room any more is left out and counted in `cut-<N>more`. So the last of the
    others go first: put result metrics and what differs from the baseline into `first`. The order of
    the kept fields does not change. Zero-dimensional NumPy and torch values become Python's.

    Raises:
        InputError: a key, value, id, extension or count that a name cannot hold, or a model too long.

    """
    _check_parts(name)
    model = _format_model(name.model)
    pieces = {key: f".{_check_key(key)}-{_format_value(key, value)}" for key, value in name.fields.items()}
    end = (f".id-{name.id}" if name.id is not None else "") + f".{name.extension}"
    whole = model + "".join(pieces.values()) + _cut_marker(name.cut) + end
    if len(whole) <= MAX_BYTES:
        return whole
    room = MAX_BYTES - len(model) - len(_cut_marker(name.cut + len(pieces))) - len(end)
    if room < 0:
        raise InputError(
            f"The model name {_show(name.model)} takes {len(model)} bytes and leaves no room in a file "
            f"name of {MAX_BYTES}: shorten it by {-room} or more."
        )
    kept = _choose(pieces, room, first=first)
    marker = _cut_marker(name.cut + len(pieces) - len(kept))
    return model + "".join(piece for key, piece in pieces.items() if key in kept) + marker + end


def new_id(when: datetime, run: str) -> str:
    """Make a 13-character id that sorts by time (to the second, until 2054) and ends in the run's digest.

    It is 'r', six Crockford base32 characters of the seconds since 2020-01-01 UTC, and six of the first
    30 bits of SHA-256 of `run`.

    Raises:
        InputError: `when` has no time zone, or lies before 2020 or after 2053.

    """
    if when.utcoffset() is None:
        raise InputError(f"The time {when.isoformat()} has no time zone: give one, such as datetime.now(UTC).")
    seconds = (when - _EPOCH) // timedelta(seconds=1)
    if not 0 <= seconds < 1 << 30:
        raise InputError(f"The time {when.isoformat()} is out of range, 2020 to 2053: set this machine's clock.")
    digest = hashlib.sha256(run.encode("utf-8", "surrogatepass")).digest()
    return f"r{_base32(seconds)}{_base32(int.from_bytes(digest[:4]) >> 2)}"


def id_digest(id: str) -> str:
    """Return the six characters that name the run, by which a retried step finds its earlier id."""
    _check_id(id)
    return id[-6:]


def has_time(id: str) -> bool:
    """Whether `new_id` made an id; those of other tools tell no time."""
    return _OWN_ID.fullmatch(id) is not None


def id_time(id: str) -> datetime:
    """When an id that `new_id` made was made, to the second; raises InputError for any other."""
    if not has_time(id):
        raise InputError(f"The id {_show(id)} tells no time: only ids that basekamp made do.")
    seconds = 0
    for character in id[1:7]:
        seconds = seconds << 5 | _BASE32.index(character)
    return _EPOCH + timedelta(seconds=seconds)


def name_from_json(text: str) -> Name:
    """Read {model, fields, extension, id, cut} as `basekamp name parse --json` writes it; all but model may miss.

    Raises:
        InputError: no JSON object, or one with other keys or without a model.
    """
    try:
        told = json.loads(text)
    except ValueError as error:
        raise InputError(f"{_show(text)} is no JSON ({error}): give an object such as {_EXAMPLE}.") from error
    if not isinstance(told, dict) or "model" not in told or not told.keys() <= Name.__dataclass_fields__.keys():
        raise InputError(f"{_show(text)} is no name: give an object such as {_EXAMPLE}.")
    if not isinstance(told.get("fields", {}), dict):
        raise InputError(f"fields={_show(told['fields'])} is no object: give {_EXAMPLE}.")
    return Name(**told)


def _base32(number: int) -> str:
    """Write a number of 30 bits as six characters."""
    return "".join(_BASE32[number >> shift & 31] for shift in range(25, -1, -5))


@lru_cache(maxsize=4096)
def read_value(text: str) -> Value:
    """Give a value its type back; what holds an escape is always a string. Settings recur from name to name."""
    match = NUMBER.fullmatch(text)
    if match is None:
        return WORDS[text] if text in WORDS else unescape(text)
    return int(text) if match[1] else float(text)


def unescape(text: str) -> str:
    """Read a text that a name holds as text, whatever it looks like."""
    return _ESCAPES.sub(_decode, text) if "%" in text else text


def _decode(match: re.Match[str]) -> str:
    try:
        return bytes.fromhex(match[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        return match[0]


def _format_model(model: str) -> str:
    text = _escape(model)
    return f"%2D{text[1:]}" if text.startswith("-") else text  # a leading '-' reads as an option in a shell


def _format_value(key: str, value: object) -> str:
    """Write a value so that `read_value` gives it back."""
    if not isinstance(value, bool | int | float | str) and getattr(value, "shape", None) == ():
        value = value.item()  # type: ignore[attr-defined]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        fits = value.bit_length() <= 4 * MAX_BYTES
        return int.__repr__(value) if fits else "9" * MAX_BYTES  # fits no name: always cut
    if isinstance(value, float):
        return float.__repr__(value).replace("+", "")
    if isinstance(value, str):
        return _format_text(key, value)
    raise InputError(
        f"The field {key!r} is {_show(value)}, a {type(value).__name__}: "
        "use true or false, an integer, a float or a string."
    )


def _format_text(key: str, value: str) -> str:
    text = _escape(value)
    if "%" in text:
        return text
    marker = {"id": ID, "cut": CUT}.get(key)
    is_misread = text in WORDS or NUMBER.fullmatch(text) or (marker and marker.fullmatch(text))
    return f"%{ord(text[0]):02X}{text[1:]}" if is_misread else text


def _escape(text: str) -> str:
    """Percent-escape what is unsafe in a file name, and each '.' that would be read as a border."""
    try:
        return _UNSAFE.sub(_encode, text)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{_show(text)} holds half of a surrogate pair, which no name can carry: use whole characters."
        ) from error


def _encode(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _cut_marker(count: int) -> str:
    return f".cut-{count}more" if count else ""


def _choose(pieces: Mapping[str, str], room: int, *, first: Collection[str]) -> set[str]:
    """Place the pieces of `first`, then the others; one that finds no room is passed over."""
    kept = set()
    for key in sorted(pieces, key=lambda key: key not in first):
        if len(pieces[key]) <= room:
            kept.add(key)
            room -= len(pieces[key])
    return kept


def _check_text(text: str) -> None:
    if not (text.isascii() and text.isprintable()) or "/" in text:
        refused = _REFUSED.search(text)
        if refused and refused[0] == "/":
            raise InputError(f"{_show(text)} is a path: give the file name alone, what follows the last '/'.")
        if refused:
            raise InputError(
                f"{_show(text)} holds the character {refused[0]!a}, which no name may hold: "
                "rename the file without control characters and broken Unicode."
            )
    if len(text) > _MAX_READ_BYTES or (not text.isascii() and len(text.encode()) > _MAX_READ_BYTES):
        raise InputError(
            f"{_show(text)} is over {_MAX_READ_BYTES:,} bytes: no file has such a name, give a shorter one."
        )
    if text.startswith("."):
        raise InputError(f"{_show(text)} begins with '.', a hidden file: a name begins with its model.")


def _check_parts(name: Name) -> None:
    if not isinstance(name.model, str) or not name.model:
        raise InputError(f"The model name {_show(name.model)} is not allowed: use a string that is not empty.")
    if not isinstance(name.extension, str) or not _EXTENSION.fullmatch(name.extension):
        raise InputError(
            f"The extension {_show(name.extension)} is not allowed: "
            "use letters, digits and '_', beginning with a letter, such as pth."
        )
    if name.id is not None:
        _check_id(name.id)
    if type(name.cut) is not int or not 0 <= name.cut <= _MAX_CUT - len(name.fields):
        raise InputError(
            f"cut={_show(name.cut)} is not allowed: use an integer from 0 to {_MAX_CUT:,} with the fields."
        )


def _check_id(id: object) -> None:
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise InputError(
            f"The id {_show(id)} is not allowed: use 8 to 16 lower-case letters and digits, a letter first."
        )


def _check_key(key: object) -> str:
    if not isinstance(key, str) or not _WHOLE_KEY.fullmatch(key):
        raise InputError(
            f"The key {_show(key)} is not allowed: use letters, digits and '_', not beginning with a digit."
        )
    return key


def _show(value: object) -> str:
    """Quote a value on one line, shortened, with nothing in it that a terminal would obey."""
    text = ascii(value[:60] if isinstance(value, str) else value)
    return f"{text[:60]}…" if len(text) > 62 or (isinstance(value, str) and len(value) > 60) else text
