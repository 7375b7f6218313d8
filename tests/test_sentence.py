"""The sentence of a verdict."""

import pytest

from basekamp.records import compare
from basekamp.report.sentence import verdict_sentence


def sentence(value: float, *, expect: float = 0.02, **noise: float) -> str:
    parts = {"variance_examples": 1e-9, "variance_seeds_attempt": 1e-9, "variance_seeds_baseline": 1e-9} | noise
    difference = compare.Difference(metric="accuracy", value=value, n_examples=400, groups=100, n_seeds=(3, 3), **parts)
    verdict, level = compare.judge(difference, expect=expect, judged_before=0)
    needed = compare.seeds_needed(difference, expect=expect, level=level)
    return verdict_sentence(verdict, difference, expect=expect, level=level, needed=needed)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (sentence(0.03), "better (± 0.000287 at 97.5 %): the gain of 0.02 hoped for is reached"),
        (sentence(-0.03), "accuracy is 0.0300 worse (± 0.000287 at 97.5 %): a gain of 0.02 is ruled out."),
        (sentence(1e-17), "accuracy is the same (±"),
        (sentence(0.01, variance_seeds_attempt=1e-4), "undecided; about "),
        (
            sentence(0.01, variance_examples=1e-3),
            "undecided, and more seeds of the attempt cannot decide it; more valid",
        ),
        (sentence(0.01, variance_examples=2e-4, variance_seeds_baseline=1e-4), "a baseline with more seeds can."),
        (sentence(0.01, variance_seeds_baseline=1e-3), "cannot decide it; a baseline with more seeds can."),
    ],
)
def test_the_sentence_says_what_was_measured_and_what_would_decide(told, text):
    assert text in told
