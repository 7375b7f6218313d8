"""One line of `basekamp doctor`, and how checks are run: side by side, each bounded in time, none raising."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from basekamp.errors import BasekampError

State = Literal["ok", "warn", "fail", "skip"]

LIMIT_SECONDS = 5.0
"""What a check may take; those that need each other's result run one after the other, all others side by side."""

_SECRETS = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "MINIO_SECRET_KEY",
    "MINIO_ACCESS_KEY",
    "KFP_TOKEN",
)


@dataclass(frozen=True)
class Check:
    """What one check found: `told` on one line, and what to do about it unless all is well."""

    name: str
    state: State
    told: str
    remedy: str = ""


@dataclass(frozen=True)
class Examination:
    """A check to be run, once the one that it needs has not failed."""

    name: str
    run: Callable[[], Check]
    needs: str = ""


def run_all(examinations: Sequence[Examination], *, secrets: Iterable[str] = ()) -> list[Check]:
    """Run every check and give their lines in the order given; `secrets` are struck out of them.

    A check that raises or takes longer than `LIMIT_SECONDS` becomes a line too.
    """
    done: dict[str, Check] = {}
    waiting = list(examinations)
    while waiting:
        ready = [each for each in waiting if not each.needs or each.needs in done]
        done |= {check.name: check for check in _side_by_side(ready, done)}
        waiting = [each for each in waiting if each.name not in done]
    hidden = [text for text in [*secrets, *(os.environ.get(name, "") for name in _SECRETS)] if len(text) > 3]
    return [_without(done[each.name], hidden) for each in examinations]


def _side_by_side(examinations: Sequence[Examination], done: dict[str, Check]) -> list[Check]:
    found: dict[str, Check] = {}
    threads = []
    for each in examinations:
        if each.needs and done[each.needs].state in ("fail", "skip"):
            found[each.name] = Check(each.name, "skip", f"not tried, as {each.needs} is not in order")
            continue
        # A daemon: a check that hangs must not keep the command from ending.
        threads.append(threading.Thread(target=_examine, args=(each, found), daemon=True))
        threads[-1].start()
    end = time.monotonic() + LIMIT_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    seen = dict(found)
    return [seen.get(each.name) or _too_slow(each.name) for each in examinations]


def _examine(examination: Examination, found: dict[str, Check]) -> None:
    name = examination.name
    try:
        found[name] = examination.run()
    except BasekampError as error:
        found[name] = failed(name, str(error))
    except Exception as error:  # whatever a library may raise is one line of the table
        said = " ".join(str(error).split())[:200]
        found[name] = Check(name, "fail", f"the check itself failed ({type(error).__name__}: {said})", "Report this.")


def failed(name: str, sentence: str) -> Check:
    """Turn one of basekamp's sentences into a line: what was got, and after the colon what to do."""
    told, _, remedy = sentence.partition("): ") if "): " in sentence else sentence.partition(": ")
    if not remedy:
        return Check(name, "fail", sentence.rstrip("."), "Correct it and try again.")
    told += ")" if "): " in sentence else ""
    return Check(name, "fail", told, remedy[:1].upper() + remedy[1:])


def _too_slow(name: str) -> Check:
    return Check(
        name, "fail", f"no answer within {LIMIT_SECONDS:g} s", "Check the address and the network, and try again."
    )


def _without(check: Check, secrets: Iterable[str]) -> Check:
    for secret in secrets:
        check = replace(check, told=check.told.replace(secret, "***"), remedy=check.remedy.replace(secret, "***"))
    return check
