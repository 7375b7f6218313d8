"""What fuzzing began with and what it found, and more of the same kind; `make fuzz` looks for more."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

FUZZ = Path(__file__).parent / "fuzz"
FILES = sorted(path for folder in ("corpus", "crashes") for path in (FUZZ / folder).glob("*/*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:]))
def test_what_was_found_stays_mended(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in FILES if "corpus" in path.parts} == set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"parquet"}))  # a process for each input takes too long
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutated_and_random_bytes_raise_only_what_a_user_should_see(name: str, data: st.DataObject) -> None:
    seeds = [path.read_bytes() for path in FILES if path.parent.name == name]
    seed = bytearray(data.draw(st.sampled_from(seeds)))
    for _ in range(data.draw(st.integers(0, 4))):
        if seed:
            place = data.draw(st.integers(0, len(seed) - 1))
            seed[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    TARGETS[name](bytes(seed))
