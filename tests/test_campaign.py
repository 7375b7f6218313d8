"""Working through an experiment: what is refused before it begins, and when an undecided attempt is tried again."""

from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from basekamp.cluster import campaign
from basekamp.errors import BasekampError, InputError, ResultsWaitError, StoreDownError
from basekamp.experiment import Experiment
from basekamp.records.shelf import Row
from basekamp.storage.pool import QUICK
from basekamp.storage.s3 import S3Store
from tests.http_server import http_server

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
        return SimpleNamespace(comparison=SimpleNamespace(seeds_needed=row.needed), checks=())

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


@pytest.fixture
def refuse(s3_env, monkeypatch):
    """Lets the environment reach a service that answers every request with an error."""
    with ExitStack() as running:

        def start(status: int, code: str) -> None:
            body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
            endpoint, _ = running.enter_context(http_server(status, body, kind="application/xml"))
            monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", endpoint)

        yield start


def refused_at_the_start(store: str, home: Path) -> str:
    with pytest.raises(BasekampError) as caught:
        campaign.run_experiment(EXPERIMENT, store=store, attempts=["wide"], gpus="0", display=Display())
    assert not list(home.glob("*/*"))
    return str(caught.value)


def test_wrong_credentials_are_told_before_anything_is_trained(s3_env, home, monkeypatch, held):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "access was refused (SignatureDoesNotMatch); check the credentials" in refused_at_the_start(s3_env, home)
    held("wrong credentials at the start of a run", 1, "refused before the first epoch")


def test_a_missing_bucket_is_told_before_anything_is_trained(s3_env, home, held):
    assert "the bucket does not exist; create it" in refused_at_the_start("s3://never-made", home)
    held("missing bucket at the start of a run", 1, "refused before the first epoch")


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (507, "XMinioStorageFull", "no space is left there (XMinioStorageFull); make room"),
        (403, "QuotaExceeded", "no space is left there (QuotaExceeded); make room"),
        (403, "RequestTimeTooSkewed", "UTC, is not the service's; set it right"),
    ],
)
def test_what_waiting_does_not_mend_is_told_before_anything_is_trained(s3_env, home, refuse, held, status, code, said):
    refuse(status, code)
    assert said in refused_at_the_start(s3_env, home)
    held(f"{code} at the start of a run", 1, "refused before the first epoch")


@pytest.mark.parametrize("years", [-2, 2])
def test_a_clock_that_the_service_does_not_share_is_told(s3_env, home, monkeypatch, years):
    monkeypatch.setattr("minio.api.time.utcnow", lambda: datetime.now(UTC) + timedelta(days=365 * years))
    assert "the clock of this machine" in refused_at_the_start(s3_env, home)


@pytest.mark.parametrize("year", [1970, 2060])
def test_a_clock_by_which_no_record_can_be_made_is_told_before_anything_is_trained(
    tmp_path, home, monkeypatch, held, year
):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(year, 1, 1, tzinfo=tz)

    monkeypatch.setattr(campaign, "datetime", Clock)
    assert "is out of range, 2020 to 2053: set this machine's clock" in refused_at_the_start(str(tmp_path / "s"), home)
    held(f"clock of {year} at the start of a run", 1, "refused before the first epoch")


@pytest.mark.parametrize("status", [None, 500, 503])
def test_a_run_goes_on_while_the_store_is_down_and_says_so_at_its_end(s3_env, home, monkeypatch, refuse, held, status):
    if status:
        refuse(status, "InternalError")
    else:
        monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", "http://127.0.0.1:9")
    trained = []

    def run_locally(package, arguments, run, *, observer):
        trained.append(arguments["attempt"])
        raise ResultsWaitError("It waits.")

    monkeypatch.setattr(campaign, "run_locally", run_locally)
    monkeypatch.setattr(S3Store.__init__, "__kwdefaults__", {"patience": QUICK})
    display = Display()
    with pytest.raises(ResultsWaitError, match="wait on this machine: baseline, wide; `basekamp sync`") as caught:
        campaign.run_experiment(EXPERIMENT, store=s3_env, attempts=["wide"], gpus="0", display=display)
    assert trained == ["baseline", "wide"] and caught.value.exit_code == 3
    assert "The training goes on, and its results wait on this machine." in display.lines[0]
    held("store down for a whole run", 1, "all was trained and waits, exit code 3")


def test_a_sweep_needs_its_store(s3_env, home, monkeypatch):
    monkeypatch.setenv("BASEKAMP_S3_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StoreDownError, match="no connection"):
        campaign.run_sweep(EXPERIMENT, store=s3_env, gpus="0", display=Display())
