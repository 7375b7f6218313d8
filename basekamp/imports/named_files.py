"""A folder of model files whose names tell their results, listed where it lies, without an import."""

from pathlib import Path

from basekamp.errors import InputError
from basekamp.evaluation.goals import METRICS
from basekamp.naming import Name, parse_name
from basekamp.records.row import Row, unjudged_row
from basekamp.records.shelf import Shelf


def read_named_files(folder: Path) -> Shelf | None:
    """The files right in a folder whose names hold a metric that we know, as imported results; None for no such file.

    The last such metric decides. Nobody knows the noise of these results, so none is judged. Other files are strangers;
    of files of one stem, as a model and its notes, the first is listed.
    """
    try:
        files = sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:
        return None
    rows: dict[str, Row] = {}
    strangers = []
    for file_name in files:
        row = _row(file_name, folder.name)
        if row is None:
            strangers.append(file_name)
        else:
            rows.setdefault(row.id, row)
    return Shelf(folder.name, (), (), strangers=tuple(strangers), imported=tuple(rows.values())) if rows else None


def _row(file_name: str, folder: str) -> Row | None:
    try:
        name = parse_name(file_name)
    except InputError:
        return None
    metrics = _metrics(name)
    if not metrics:
        return None
    return unjudged_row(
        name=file_name,
        key=file_name,
        experiment=folder,
        attempt=name.model,
        id=name.id or file_name.removesuffix(f".{name.extension}"),
        params={"model": name.model, **{key: value for key, value in name.fields.items() if key not in metrics}},
        metrics=metrics,
        cut=name.cut,
    )


def _metrics(name: Name) -> dict[str, float]:
    told = {key: value for key, value in name.fields.items() if key in METRICS}
    return {key: float(value) for key, value in told.items() if isinstance(value, int | float)}
