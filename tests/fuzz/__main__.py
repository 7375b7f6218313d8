"""`python -m tests.fuzz SECONDS [TARGET …]`: atheris looks for what escapes; a find becomes a file in crashes/."""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ONE = "--one"
MOST_BYTES = 4096
MOST_MEGABYTES = 4096


def main(seconds: int, names: list[str]) -> int:
    """Fuzz each target for its share of the time, in a process of its own; the exit status is 1 for a find."""
    from tests.fuzz.targets import TARGETS

    chosen = names or list(TARGETS)
    return max([_watch(name, seconds // len(chosen)) for name in chosen])


def _watch(name: str, seconds: int) -> int:
    crashes = HERE / "crashes" / name
    crashes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="basekamp-fuzz-") as grown:
        options = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-rss_limit_mb={MOST_MEGABYTES}"]
        options += [f"-artifact_prefix={crashes}/", "-print_final_stats=1", "-verbosity=1", "-timeout=20"]
        command = [sys.executable, "-m", "tests.fuzz", ONE, name, *options, grown, str(HERE / "corpus" / name)]
        return 1 if subprocess.run(command).returncode else 0


def _fuzz(name: str, arguments: list[str]) -> None:
    import atheris

    with atheris.instrument_imports(include=["basekamp"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1] == ONE:
        _fuzz(sys.argv[2], sys.argv[3:])
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
