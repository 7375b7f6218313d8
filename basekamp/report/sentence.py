"""The verdict in one sentence."""

from basekamp.language import gettext
from basekamp.records.verdict import Difference, Verdict
from basekamp.report.numbers import change, confidence, metric_name


def verdict_sentence(
    verdict: Verdict, difference: Difference, *, expect: float, level: float, needed: int | None
) -> str:
    """What was found, how sure that is, and what it says of the hypothesis; in the current language."""
    measured = _measured(difference, level)
    if verdict == "supported":
        told = gettext(
            "the gain of {expect} hoped for is reached, and no gain at all is ruled out.", expect=f"{expect:g}"
        )
    elif verdict == "refuted":
        told = gettext("a gain of {expect} is ruled out.", expect=f"{expect:g}")
    elif needed:
        told = gettext("undecided; about {n} seeds would decide it.", n=needed)
    elif difference.reach_of_baseline(level) > difference.reach_of_examples(level):
        told = gettext("undecided, and more seeds of the attempt cannot decide it; a baseline with more seeds can.")
    else:
        told = gettext("undecided, and more seeds of the attempt cannot decide it; more validation examples can.")
    return f"{measured}: {told}"


def _measured(difference: Difference, level: float) -> str:
    gain = difference.gain
    told = {
        "metric": metric_name(difference.metric),
        "size": change(abs(gain)),
        "half": change(difference.half_width(level)),
        "level": confidence(level),
    }
    if told["size"] == "0":
        return gettext("{metric} is the same (± {half} at {level})", **told)
    if gain > 0:
        return gettext("{metric} is {size} better (± {half} at {level})", **told)
    return gettext("{metric} is {size} worse (± {half} at {level})", **told)
