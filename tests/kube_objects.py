"""What the Kubernetes API does with objects: label and field selectors, patches, a CRD's schema read strictly."""

import copy
from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]


class RefusedError(Exception):
    """An answer other than 2xx, told as the API's Status object."""

    def __init__(self, status: int, reason: str, message: str):
        super().__init__(message)
        self.status, self.reason = status, reason


def fits_labels(selector: str, labels: dict[str, str]) -> bool:
    """Whether labels fit a label selector."""
    return all(_fits_label(part, labels) for part in _requirements(selector))


def _requirements(selector: str) -> Iterator[str]:
    """Split at the commas that stand outside parentheses."""
    depth, part = 0, ""
    for character in f"{selector},":
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            if part.strip():
                yield part.strip()
            part = ""
        else:
            part += character


def _fits_label(part: str, labels: dict[str, str]) -> bool:
    for word, wanted in ((" notin ", False), (" in ", True)):
        key, found, values = part.partition(word)
        if found:
            return (labels.get(key.strip()) in [value.strip() for value in values.strip(" ()").split(",")]) is wanted
    if "!=" in part:
        key, _, value = part.partition("!=")
        return labels.get(key.strip()) != value.strip()
    if "=" in part:
        key, _, value = part.replace("==", "=").partition("=")
        if len(value) > 63:
            raise RefusedError(400, "BadRequest", f"unable to parse requirement: invalid label value: {value!r}")
        return labels.get(key.strip()) == value.strip()
    return (part.lstrip("!") in labels) is not part.startswith("!")


def fits_fields(selector: str, thing: Object) -> bool:
    """Whether an object fits a field selector; a field that is absent is empty."""
    for part in filter(None, selector.split(",")):
        key, _, value = part.replace("==", "=").partition("=")
        wanted = not key.endswith("!")
        held: Any = thing
        for step in key.rstrip("!").split("."):
            held = held.get(step, "") if isinstance(held, dict) else ""
        if (str(held) == value) is not wanted:
            return False
    return True


def patched(stored: Object, patch: Any) -> Object:
    """Apply a JSON patch (a list) or a JSON merge patch."""
    if isinstance(patch, list):
        return _json_patched(stored, patch)
    return _merged(stored, patch)


def _merged(stored: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    base = dict(stored) if isinstance(stored, dict) else {}
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        else:
            base[key] = _merged(base.get(key), value)
    return base


def _json_patched(stored: Object, patch: list[Object]) -> Object:
    changed = copy.deepcopy(stored)
    for step in patch:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place: Any = changed
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if isinstance(place, list):
            index = len(place) if last == "-" else int(last)
            if step["op"] == "add":
                place.insert(index, step["value"])
            else:
                place[index : index + 1] = [] if step["op"] == "remove" else [step["value"]]
        elif step["op"] == "remove":
            del place[last]
        else:
            place[last] = step["value"]
    return changed


def strict_schema(schema: Object) -> Object:
    """Make a CRD's schema refuse unknown fields, as `kubectl --validate=strict` does, and read its extensions."""
    if not isinstance(schema, dict):
        return schema
    told = {key: _strict_value(key, value) for key, value in schema.items()}
    if told.pop("nullable", False) and "type" in told:
        told["type"] = [told["type"], "null"]
    if told.get("x-kubernetes-int-or-string"):
        told.pop("type", None)
        told["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    loose = told.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in told
    if "properties" in told and not loose:
        told["additionalProperties"] = False
    return told


def _strict_value(key: str, value: Any) -> Any:
    if key == "properties":
        loose = {"metadata": {"type": "object"}, "apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        return {name: loose.get(name, strict_schema(each)) for name, each in value.items()}
    if key in ("items", "additionalProperties"):
        return strict_schema(value)
    return value
