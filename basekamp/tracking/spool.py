"""The spool: what trackers are to be told, one JSON object a line, in files that only ever grow by whole lines.

<work folder>/tracking/<run>.<part>.jsonl             `train`, or `judge-<record's id>`
<work folder>/tracking/<run>.<part>.<tracker>.sent    how much of it that tracker has: bytes, lines, and the last error
<work folder>/tracking/<run>.<tracker>.lock           held by the process that sends

Kinds of lines: `begin` (who and with which settings), `points` (one epoch of every seed that trains together), `result`
(metrics and tags), `artifact` (a file in the store), `end`. Nothing here imports torch, kfp or a tracker.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from basekamp.training.files import replace_file
from basekamp.work import work_directory

Event = dict[str, Any]
TRAIN, JUDGE = "train", "judge"


class Line(NamedTuple):
    """One event, and the bytes of the file up to its end."""

    event: Event
    end: int


@dataclass(frozen=True)
class Sent:
    """How much of a spool a tracker has, and why not all of it; `of` is the time at which that spool began."""

    bytes: int = 0
    lines: int = 0
    error: str = ""
    of: int = 0


class Spool:
    """One file of events about one run; `part` is what of the run it tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run, self.part = path.name.split(".")[:2]

    def lines(self, start: int = 0) -> Iterator[Line]:
        """The whole lines from a byte on; what follows the last line's end is still being written."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                with suppress(ValueError):
                    yield Line(json.loads(line), start)

    def append(self, *events: Event) -> None:
        """Add events by one write; a line that a kill tore is removed first."""
        content = "".join(json.dumps(event) + "\n" for event in events).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(content)

    def mend(self) -> None:
        """Remove what a kill left of a line, so that the next one begins on its own."""
        with suppress(FileNotFoundError):
            content = self.path.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(self.path, content.rfind(b"\n") + 1)

    def begin(self) -> Event | None:
        """Who the run is; None while nothing is written."""
        line = next(self.lines(), None)
        return line.event if line else None

    @property
    def has_ended(self) -> bool:
        """Whether no more lines will follow."""
        return any(line.event["kind"] == "end" for line in self.lines())

    @property
    def trackers(self) -> tuple[str, ...]:
        """Who is to be told."""
        begin = self.begin()
        return tuple(begin["trackers"]) if begin else ()

    def sent(self, tracker: str) -> Sent:
        """How much of it a tracker has; what was noted of an earlier spool of this name counts for nothing."""
        begin = self.begin()
        nothing = Sent(of=begin["time"] if begin else 0)
        try:
            sent = Sent(**json.loads(self._sent_path(tracker).read_bytes()))
        except (OSError, ValueError, TypeError):
            return nothing
        return sent if sent.of == nothing.of else nothing

    def note_sent(self, tracker: str, sent: Sent) -> None:
        """Write down how much of it a tracker has."""
        replace_file(self._sent_path(tracker), json.dumps(asdict(sent)).encode(), durable=False)

    def left(self, tracker: str) -> int:
        """How many lines a tracker does not have yet."""
        return sum(1 for _ in self.lines(self.sent(tracker).bytes))

    @property
    def is_settled(self) -> bool:
        """Whether it has ended and every tracker has all of it."""
        return self.has_ended and not any(self.left(tracker) for tracker in self.trackers)

    def remove(self) -> None:
        """Remove it, the events last: without them the rest says nothing."""
        for tracker in self.trackers:
            self._sent_path(tracker).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _sent_path(self, tracker: str) -> Path:
        return self.path.with_suffix(f".{tracker}.sent")


def spool_folder() -> Path:
    """Where this machine's spools lie."""
    return work_directory() / "tracking"


def spool_of(run: str, part: str, folder: Path | None = None) -> Spool:
    """The spool of one part of a run."""
    return Spool((folder or spool_folder()) / f"{run}.{part}.jsonl")


def spools(folder: Path | None = None, run: str = "*") -> list[Spool]:
    """All spools, or those of one run; in each run the training's before the judgements."""
    found = (Spool(path) for path in (folder or spool_folder()).glob(f"{run}.*.jsonl"))
    return sorted(found, key=lambda spool: (spool.run, not spool.part.startswith(TRAIN), spool.part))
