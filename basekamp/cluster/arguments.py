"""The arguments of a compiled pipeline: every parameter, explicitly, in the type that it declares.

Kubeflow's Compare Runs view shows a parameter only if it was passed when the run was created, and the
API server refuses a value of another type than the declared one; so both are settled here, before
anything is sent.
"""

import difflib
import json
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from basekamp.cluster.package import declared_parameters
from basekamp.errors import InputError

LARGEST_EXACT_INTEGER = 2**53
"""KFP carries every number as a double: integers beyond this would silently change."""


def typed_arguments(package: Path, values: Mapping[str, object]) -> dict[str, object]:
    """Give every parameter of the compiled pipeline in `package`: from `values`, else its default.

    Each value comes back in the declared type: a STRING given 1 is "1", a NUMBER_INTEGER given "3" is 3,
    a LIST or STRUCT may be given as JSON text. Only an optional parameter without a default stays out,
    because KFP has no value that means "not given".

    Raises:
        InputError: an unreadable package, an unknown or missing parameter, or a value of another type.
    """
    declared = declared_parameters(package)
    for name in values:
        if name not in declared:
            raise InputError(_unknown_parameter(name, package, list(declared)))
    arguments: dict[str, object] = {}
    for name, spec in declared.items():
        if name in values:
            arguments[name] = _convert(name, values[name], spec)
        elif "defaultValue" in spec:
            arguments[name] = _convert(name, spec["defaultValue"], spec)
        elif not spec.get("isOptional"):
            raise InputError(f"{name} is missing: {package} gives it no default, so pass a value for it.")
    return arguments


def kfp_command(package: Path, arguments: Mapping[str, object], *, experiment: str, run_name: str) -> str:
    """Write the `kfp run create` line, quoted for a shell, that submits the same run.

    `arguments` are typed ones. kfp reads each value as JSON, then bool, int, float, str; a string that
    it would read as anything but itself is therefore written as JSON: `gpus="1"`.
    """
    words = ["kfp", "run", "create", "-e", experiment, "-r", run_name, "-f", str(package)]
    words += [f"{name}={_as_word(value)}" for name, value in arguments.items() if value is not None]
    return shlex.join(words)


def _unknown_parameter(name: str, package: Path, declared: list[str]) -> str:
    nearest = difflib.get_close_matches(name, declared, n=1)
    advice = f"did you mean {nearest[0]}?" if nearest else f"it has {', '.join(declared) or 'none'}."
    return f"{name} is not a parameter of {package}: {advice}"


def _convert(name: str, value: object, spec: Mapping[str, Any]) -> object:
    declared = spec.get("parameterType")
    if declared not in _CONVERTERS:
        raise InputError(f"{name} has the type {declared}: a pipeline takes {', '.join(_CONVERTERS)} only.")
    wanted, convert = _CONVERTERS[declared]
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
        raise InputError(f"{name}={shown} is not allowed: the pipeline takes {wanted} here.") from error


def _string(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, int | str):
        return str(value)
    raise TypeError


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = float(value)  # YAML reads 1e3 as text
    if value != int(value) or abs(value) > LARGEST_EXACT_INTEGER:
        raise ValueError
    return int(value)


def _double(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise TypeError


def _list(value: object) -> object:
    return _json(value, list, tuple)


def _struct(value: object) -> object:
    return _json(value, dict)


def _json(value: object, *types: type) -> object:
    read = json.loads(value) if isinstance(value, str) else value
    if not isinstance(read, types):
        raise TypeError
    return json.loads(json.dumps(read, allow_nan=False))


_CONVERTERS: dict[Any, tuple[str, Callable[[object], object]]] = {
    "STRING": ("text", _string),
    "NUMBER_INTEGER": ("a whole number of at most 2^53", _integer),
    "NUMBER_DOUBLE": ("a finite number", _double),
    "BOOLEAN": ("true or false", _boolean),
    "LIST": ("a list of JSON values", _list),
    "STRUCT": ("a mapping of JSON values", _struct),
}


def _as_word(value: object) -> str:
    if isinstance(value, str) and _reads_as_itself(value):
        return value
    return json.dumps(value)


def _reads_as_itself(text: str) -> bool:
    """Tell whether kfp's command line takes `text` for the string that it is.

    Source: kfp/cli/utils/parsing.py, parse_parameter_value; a property test compares the two.
    """
    if text.lower() in ("true", "false"):
        return False
    for read in (json.loads, int, float):
        try:
            read(text)
        except (ValueError, RecursionError):
            continue
        return False
    return True
