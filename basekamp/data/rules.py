"""The rules that data are held to before they are trained on, and what becomes of a run that breaks one."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from basekamp.errors import InputError
from basekamp.validation import Problem, did_you_mean, not_allowed, one_of, unknown_key

Action = Literal["stop", "warn", "off"]
ACTIONS: tuple[Action, ...] = get_args(Action)

RULES: dict[str, Action] = {
    "schema": "stop",
    "drift": "warn",
    "leaking_feature": "warn",
    "duplicates": "warn",
    "group": "warn",
    "time": "warn",
}
"""What is done unless the experiment file says otherwise.

schema: columns, types and classes are the baseline's; drift: values are distributed as the baseline's; leaking_feature:
no column alone gives the target away; duplicates: no row is trained on and measured with; group: rows that belong
together are on one side; time: the split does not mix past and future.
"""


def actions_of(checks: Mapping[str, Any]) -> dict[str, Action]:
    """The action of every rule, of which some are given.

    Raises: InputError for a rule or an action that is not known.
    """
    for problem in rule_problems(checks):
        raise InputError(f"data.checks.{problem.sentence()}")
    return {**RULES, **checks}


def rule_problems(checks: Mapping[Any, object]) -> list[Problem]:
    """What is wrong with a mapping from rules to actions."""
    problems = []
    for rule, action in checks.items():
        if rule not in RULES:
            problems.append(Problem((str(rule),), unknown_key(str(rule), RULES)))
        elif action not in ACTIONS:
            near = did_you_mean(action, ACTIONS).strip()
            use = one_of(ACTIONS) + (f" ({near})" if near else "")
            problems.append(Problem((rule,), not_allowed(action, use), action))
    return problems
