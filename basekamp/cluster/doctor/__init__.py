"""Whether this machine, and the cluster if asked, have what a run needs: one line a check, each with its remedy."""

from collections.abc import Iterable
from dataclasses import asdict

from basekamp.cluster.doctor.check import Check, State, run_all
from basekamp.cluster.doctor.laptop import laptop_examinations

__all__ = ["Check", "State", "as_json", "as_table", "check_all", "exit_code"]


def check_all(
    *,
    host: str = "",
    token: str = "",
    namespace: str = "",
    store: str = "",
    image: str = "",
    cluster: bool = False,
) -> list[Check]:
    """Run the checks of this machine and, with `cluster`, those of the cluster; never raises.

    Without `host`, Kubeflow Pipelines is looked for through the kubeconfig; without `namespace`, pods in kubeflow.
    What is left empty of `store` and `image` is skipped. A check takes at most 5 s, and all of them at most 15 s.
    """
    examinations = laptop_examinations(host=host, store=store)
    if cluster:
        from basekamp.cluster.doctor.cluster import ClusterDoctor

        examinations += ClusterDoctor(host, token, namespace, image).examinations()
    return run_all(examinations, secrets=[token])


def exit_code(checks: Iterable[Check]) -> int:
    """Give 1 when a check failed, else 0: a warning is advice."""
    return int(any(check.state == "fail" for check in checks))


def as_table(checks: Iterable[Check]) -> str:
    """Show one line a check, and below it what to do, where something is to be done."""
    listed = list(checks)
    width = max((len(check.name) for check in listed), default=0)
    lines = []
    for check in listed:
        lines.append(f"{check.state:<4}  {check.name:<{width}}  {check.told}")
        if check.remedy:
            lines.append(f"{'':<4}  {'':<{width}}  → {check.remedy}")
    return "\n".join(lines)


def as_json(checks: Iterable[Check]) -> list[dict[str, str]]:
    """Checks as plain values, for `--json`."""
    return [asdict(check) for check in checks]
