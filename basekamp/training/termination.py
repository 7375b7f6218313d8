"""How trainings end early: SIGTERM from a node that drains or a run that is ended, and the death of a parent."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_STATUS = 128 + signal.SIGTERM
"""What a shell and Kubernetes call a process that SIGTERM ended: 143."""

_SECONDS_BETWEEN_LOOKS = 0.3


@contextmanager
def on_sigterm(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` instead of dying when SIGTERM comes; only in the main thread, elsewhere nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda _signal, _frame: act())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def end_with_parent(parent: int) -> None:
    """End this process soon after its parent, of this process number, has died, however: no orphan trains on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os._exit(EXIT_STATUS)

    threading.Thread(target=watch, daemon=True).start()
