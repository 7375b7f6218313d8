"""One YAML file as plain values, with the line of every key.

The dialect is the plain core of YAML 1.2: `1e-4` is a number, `on`, `off`, `yes` and `no` are strings, only
`true` and `false` are booleans, a date stays a string. Keys are always strings. Aliases and tags are refused,
so a small file cannot grow into a large value.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from basekamp.errors import InputError

MAX_BYTES = 1 << 20
MAX_DEPTH = 20
MAX_VALUES = 20_000
_TAG = "tag:yaml.org,2002:"
_SPECIAL_FLOATS = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """The values of a file, the line of each key path, and the keys that were given twice."""

    path: str
    value: object
    lines: dict[KeyPath, int]
    repeated: tuple[tuple[KeyPath, int, int], ...]  # key path, first line, second line

    def line(self, path: KeyPath) -> int:
        """Return the line of a key path, or of the nearest key around it; counted from 1."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


class _Loader(yaml.SafeLoader):
    """Composes nodes without aliases and with bounded depth and number; values are built by `_Builder`."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - filled below, in place of those of YAML 1.1
    depth = count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one node; aliases and deep nesting are refused."""
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*) is not allowed: write the value out", problem_mark=mark)
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_DEPTH} levels are not allowed: nest less", problem_mark=mark
            )
        if self.count > MAX_VALUES:
            raise yaml.MarkedYAMLError(
                problem=f"more than {MAX_VALUES:,} values are not allowed: write less", problem_mark=mark
            )
        self.count += 1
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _resolve(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(_TAG + kind, re.compile(rf"(?:{pattern})\Z"), list(first))


_resolve("null", "~|null|Null|NULL|", "~nN")
_Loader.yaml_implicit_resolvers[""] = [(_TAG + "null", re.compile(r"\Z"))]
_resolve("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_resolve("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789")
_resolve("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.")


def read_yaml(path: str | Path) -> YamlFile:
    """Read one UTF-8 YAML file of at most 1 MiB.

    Raises:
        InputError: the file is missing, unreadable, too large, not UTF-8 or not YAML; names the line.
    """
    text = _read_text(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        builder = _Builder()
        value = None if node is None else builder.build(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InputError(f"{path}, line {mark.line + 1 if mark else 1}: {_syntax(error)}.") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError(
            f"{path}, line {line}: the character U+{error.character:04X} is not allowed in YAML: take it out."
        ) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as an escape beyond Unicode
        raise InputError(f"{path} is not YAML: {error}.") from error
    return YamlFile(str(path), value, builder.lines, tuple(builder.repeated))


def _read_text(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: give the path of an experiment file.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{str(path)!r} cannot be read ({reason}): give the path of an experiment file.") from error
    if len(data) > MAX_BYTES:
        raise InputError(f"{path} is larger than 1 MiB: an experiment file is a page of text, not data.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8.") from error


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    if r"'\t'" in problem:
        return "a tab cannot indent in YAML: use spaces"
    if "not allowed" in problem and not error.context:
        return problem
    return f"this is not YAML: {problem}" + (f" ({error.context})" if error.context else "")


class _Builder:
    """Turns nodes into values and notes the line of each key path."""

    def __init__(self) -> None:
        self.lines: dict[KeyPath, int] = {}
        self.repeated: list[tuple[KeyPath, int, int]] = []

    def build(self, node: yaml.Node, path: KeyPath) -> object:
        """Return the value of a node that lies under `path`."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        raise _refused(node, f"the tag {node.tag} is not allowed: take it out")

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _refused(key_node, "a list or mapping is not allowed as a key: use a word")
            key = _text(key_node)
            line = key_node.start_mark.line + 1
            if key in values:
                self.repeated.append(((*path, key), self.lines[(*path, key)], line))
                continue
            self.lines[(*path, key)] = line
            values[key] = self.build(value_node, (*path, key))
        return values


def _scalar(node: yaml.ScalarNode) -> object:
    kind, text = node.tag.removeprefix(_TAG), _text(node)
    try:
        if kind == "str":
            return text
        if kind == "null" and text.lower() in ("", "~", "null"):
            return None
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if kind == "float":
            return float(_SPECIAL_FLOATS.get(text.lower(), text))
    except (ValueError, KeyError) as error:  # a wrong explicit tag, or thousands of digits
        raise _refused(node, f"{text[:40]!r} is not allowed as {kind}: write a plain value") from error
    raise _refused(node, f"the tag {node.tag} is not allowed: take it out")


def _text(node: yaml.ScalarNode) -> str:
    text: str = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _refused(node, "half of a surrogate pair is not allowed: write the character itself")
    return text


def _refused(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
