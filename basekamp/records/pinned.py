"""The pinned baseline beside what an experiment file says of it."""

from basekamp.errors import InputError
from basekamp.experiment import Experiment
from basekamp.models.source import software_versions
from basekamp.naming import Value
from basekamp.records.record import Record, differing
from basekamp.records.shelf import Row, Shelf, read_record
from basekamp.storage import Store


def check_pinned(record: Record, experiment: Experiment) -> None:
    """Raise InputError for a file whose baseline has other settings, or that asks another question."""
    changed = {key: pinned for key, (pinned, _) in differing(_settings(experiment), record.params).items()}
    changed |= {key: pinned for key, (pinned, _) in other_question(record, experiment).items()}
    if changed:
        told = ", ".join(f"{key}={pinned}" for key, pinned in changed.items())
        raise InputError(
            f"the baseline of {experiment.experiment} is pinned with {told}, and the file says otherwise: set the file "
            "back, begin anew with `basekamp rebase FILE`, or give the changed experiment another name."
        )


def other_question(record: Record, experiment: Experiment) -> dict[str, tuple[str, str]]:
    """What the file asks otherwise than a record did, as {key: (recorded, the file's)}."""
    asked = {"metric": (record.metric, experiment.metric.name), "target": (record.data.target, experiment.data.target)}
    return {key: (recorded, theirs) for key, (recorded, theirs) in asked.items() if recorded != theirs}


def check_departure(store: Store, pinned: Row, experiment: Experiment, fingerprint: str) -> None:
    """Raise InputError unless the file has another baseline at the same question: no other begins a new lineage."""
    record = read_record(store, pinned)
    other = other_question(record, experiment)
    if other:
        told = ", ".join(f"{key}={theirs}" for key, (_, theirs) in other.items())
        raise InputError(
            f"{told} is another question than the one of {experiment.experiment}, and a rebase keeps the question: "
            "give the changed experiment another name."
        )
    if _is_files(record, experiment, fingerprint):
        raise InputError(
            f"the baseline of {experiment.experiment} is the file's already, by the same code: change its settings, "
            "the seeds or the data first, or go on with `basekamp run FILE`."
        )


def waiting_baseline(store: Store, shelf: Shelf, experiment: Experiment, fingerprint: str) -> Row | None:
    """The file's baseline as a rebase that was stopped left it: recorded, and not yet pinned."""
    others = [row for row in shelf.rows if row.role == "baseline" and row != shelf.baseline]
    return next((row for row in others if _is_files(read_record(store, row), experiment, fingerprint)), None)


def _is_files(record: Record, experiment: Experiment, fingerprint: str) -> bool:
    """Whether a baseline is what the file, today's code and packages make of the source with this fingerprint."""
    recorded = (record.params, len(record.evaluation.replicates), record.data.fingerprint, record.training.versions)
    software = software_versions(experiment.hyperparameters().model)
    return recorded == (_settings(experiment), experiment.seeds, fingerprint, software)


def _settings(experiment: Experiment) -> dict[str, Value]:
    return experiment.hyperparameters().effective()
