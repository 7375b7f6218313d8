"""Where old results lie: tables, folders of named files, MLflow experiments, W&B's run folders."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from basekamp.errors import InputError
from basekamp.imports.result import Found, UnreadableError
from basekamp.naming import parse_name

PAGE = 1000


def read_source(kind: str, place: str, part: str = "") -> tuple[Iterator[Found | UnreadableError], str]:
    """What lies in a source of this kind, and what to call it; `part` is a workbook's sheet or MLflow's experiment.

    Raises InputError, here or while it is read, for a source that cannot be read at all.
    """
    path = Path(place)
    if kind == "mlflow":
        if not part:
            raise InputError("An experiment of MLflow's is missing: write `basekamp import mlflow URI EXPERIMENT ...`.")
        return read_mlflow(place, part), f"mlflow:{part}"
    if kind == "xlsx":
        return read_xlsx(path, part), f"xlsx:{path.name}"
    if part:
        raise InputError(f"{part} is one word too many: `basekamp import {kind}` takes one place.")
    readers = {"csv": read_csv, "folder": read_folder, "wandb": read_wandb}
    return readers[kind](path), f"{kind}:{path.name}"


def read_csv(path: Path) -> Iterator[Found | UnreadableError]:
    """Each row of a table whose first line names the columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                place = f"{path.name}, line {reader.line_num}"
                if None in row:
                    yield UnreadableError(f"{place}: it has more cells than there are columns.")
                else:
                    yield Found(place, "", {name.strip(): cell for name, cell in row.items() if name.strip()})
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def read_xlsx(path: Path, sheet: str = "") -> Iterator[Found]:
    """Each row of a workbook's first sheet, or of the one named."""
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise InputError("xlsx files need a package that is not here: pip install 'basekamp[xlsx]'.") from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl lets zip's, XML's and its own errors through
        raise _unreadable(path, error) from error
    try:
        if sheet and sheet not in book.sheetnames:
            raise InputError(f"{path} has no sheet {sheet!r}: use one of {', '.join(book.sheetnames)}.")
        rows = book[sheet or book.sheetnames[0]].iter_rows(values_only=True)
        names = [str(name).strip() if name is not None else "" for name in next(rows, ())]
        for number, row in enumerate(rows, 2):
            values = {name: value for name, value in zip(names, row, strict=False) if name}
            if any(value is not None for value in row):
                yield Found(f"{path.name}, row {number}", "", values)
    finally:
        book.close()


def read_folder(folder: Path) -> Iterator[Found | UnreadableError]:
    """Each file of a folder, and of those below, whose name tells its result."""
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that the files lie in.")
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        try:
            name = parse_name(path.name)
        except InputError as error:
            yield UnreadableError(f"{relative}: {error}")
            continue
        yield Found(str(relative), path.name, {"model": name.model, **name.fields}, told={"file": str(relative)})


def read_mlflow(uri: str, experiment: str) -> Iterator[Found]:
    """Each run of an MLflow experiment: its settings, and the last value of each metric."""
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise InputError("MLflow needs a package that is not here: pip install 'basekamp[mlflow]'.") from error
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(experiment)
        if known is None:
            raise InputError(f"{uri} has no experiment {experiment!r}: see its UI for the names.")
        token: str | None = ""
        while token is not None:
            runs = client.search_runs([known.experiment_id], max_results=PAGE, page_token=token or None)
            yield from (_of_mlflow(run) for run in runs)
            token = runs.token or None
    except MlflowException as error:
        raise InputError(f"{uri} cannot be read ({' '.join(str(error).split())[:200]}): is it MLflow's?") from error


def read_wandb(folder: Path) -> Iterator[Found | UnreadableError]:
    """Each run below a folder of W&B's, offline or not, that left its `.wandb` file."""
    try:
        import wandb  # noqa: F401 - its parts are imported where they are used
    except ImportError as error:
        raise InputError("W&B's files need a package that is not here: pip install 'basekamp[wandb]'.") from error
    paths = sorted(folder.rglob("run-*.wandb"))
    if not paths:
        raise InputError(f"{folder} holds no run of W&B's: give the folder that its offline-run-… folders lie in.")
    from basekamp.imports.wandb_file import read_wandb_file

    for path in paths:
        place = str(path.parent.relative_to(folder)) or path.name
        try:
            yield read_wandb_file(path, place)
        except UnreadableError as error:
            yield UnreadableError(f"{place}: {error}")


def _of_mlflow(run: Any) -> Found:
    created = datetime.fromtimestamp(run.info.start_time / 1000, UTC) if run.info.start_time else None
    told = {"status": run.info.status, "user": run.info.user_id or ""}
    named = (f"run {run.info.run_name}", run.info.run_id)
    return Found(*named, run.data.params, run.info.run_name or "", created, told, run.data.metrics)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return InputError(f"{path} cannot be read ({reason}): give a file of this kind.")
