"""Working through an experiment: when an undecided attempt is looked at again, and with how many seeds."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from basekamp.cluster import campaign
from basekamp.errors import InputError
from basekamp.experiment import Experiment
from basekamp.records.shelf import Row

EXPERIMENT = Experiment.model_validate(
    {
        "experiment": "e",
        "data": {"source": "sklearn:digits", "target": "digit"},
        "metric": {"name": "accuracy"},
        "baseline": {"model": "linear"},
        "attempts": {"wide": {"hypothesis": "It helps.", "expect": 0.01, "lr": 0.1}},
    }
)


class Display:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def steps(self, title, run, pipeline):
        yield lambda step, state: None


@pytest.mark.parametrize(
    ("most", "told", "seeds"),
    [
        (0, [("inconclusive", 7)], [3]),  # not asked to
        (10, [("supported", None)], [3]),
        (10, [("refuted", None)], [3]),
        (10, [("inconclusive", None)], [3]),  # no number of seeds would decide it
        (10, [("inconclusive", 7), ("supported", None)], [3, 7]),
        (10, [("inconclusive", 7), ("inconclusive", 9), ("refuted", None)], [3, 7, 9]),
        (10, [("inconclusive", 40), ("inconclusive", 80)], [3, 10]),  # no more than allowed
    ],
)
def test_an_undecided_attempt_is_looked_at_again_with_the_seeds_that_it_needs(tmp_path, monkeypatch, most, told, seeds):
    looks: list[tuple[str, int]] = []
    script = iter([(None, None), *told])  # the baseline first

    def run(values, experiment, store, display, **options):
        looks.append((values["attempt"], values["seeds"]))
        verdict, needed = next(script)
        return SimpleNamespace(attempt=values["attempt"], n=values["seeds"], verdict=verdict, needed=needed)

    def read(store, row: Row):
        return SimpleNamespace(comparison=SimpleNamespace(seeds_needed=row.needed))

    monkeypatch.setattr(campaign, "_run", run)
    monkeypatch.setattr(campaign, "read_record", read)
    display, options = Display(), {"attempts": ["wide"], "gpus": "0", "most_seeds": most}
    _, made = campaign.run_experiment(EXPERIMENT, store=str(tmp_path), display=display, **options)
    assert looks == [("baseline", 3), *(("wide", n) for n in seeds)] and len(made) == len(looks)
    again = [
        f"wide: undecided with {n} seeds, once more with {more}" for n, more in zip(seeds, seeds[1:], strict=False)
    ]
    assert display.lines == again


@pytest.mark.parametrize("most", [-1, 1, 3])
def test_no_more_seeds_than_the_file_has_are_refused(tmp_path, most):
    options = {"attempts": ["wide"], "gpus": "0", "most_seeds": most}
    with pytest.raises(
        InputError, match=f"--until-decided {most} is not allowed: use more than the 3 seeds of the file"
    ):
        campaign.run_experiment(EXPERIMENT, store=str(tmp_path), display=Display(), **options)
