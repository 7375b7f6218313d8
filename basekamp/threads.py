"""Work that goes on in threads while what is done already is used, in order, a bounded part of it at a time."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

MOST_AT_ONCE = 4
"""Calls that compute at once, however many processors there are: what each holds adds up."""


def in_threads(
    calls: Iterable[Callable[[], Made]], threads: int, *, waiting: int | None = None
) -> Generator[Made, None, None]:
    """Give what each call gives, in order, while the next ones run in threads or wait: as many as threads."""
    begun: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for call in calls:
                begun.append(pool.submit(call))
                if len(begun) == (waiting or threads):
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for each in begun:
                each.cancel()


def computed(act: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """Give `act(item)` for each item, in order, computed on all processors, four at most."""
    processors = min(os.cpu_count() or 1, MOST_AT_ONCE)
    return in_threads((partial(act, item) for item in items), max(processors, 2))


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Yield the items, of which the next one is made meanwhile in a thread."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
