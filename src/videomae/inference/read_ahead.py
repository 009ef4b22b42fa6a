"""Several iterators one after the other, while threads work on the next ones: decoding ahead over many videos.

PyAV decodes outside the interpreter's lock, so that threads are enough.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from queue import Full, Queue
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

ITEMS_AHEAD = 2  # of each iterator
_LOOK_SECONDS = 0.1  # how often a thread that waits looks whether it is still wanted


class _Failure(NamedTuple):
    error: BaseException


class _End(NamedTuple):
    pass


class _Thread(Generic[T]):
    """One iterator, run in a thread into a queue of bounded length."""

    def __init__(self, source: Callable[[], Generator[T, None, None]], stop: threading.Event) -> None:
        self._source = source
        self._stop = stop
        self._queue: Queue[T | _Failure | _End] = Queue(ITEMS_AHEAD)
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
        self._thread.start()

    def items(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            with closing(self._source()) as items:
                for item in items:
                    if not self._put(item):
                        return
        except BaseException as error:  # raised again where the items are taken
            self._put(_Failure(error))
        else:
            self._put(_End())

    def _put(self, item: T | _Failure | _End) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_SECONDS)
            except Full:
                continue
            return True
        return False


def in_order(sources: Iterable[Callable[[], Generator[T, None, None]]], *, workers: int) -> Generator[T, None, None]:
    """Yield the items of all iterators in order, those of the next `workers` iterators being made meanwhile.

    Args:
        sources: Each makes an iterator, which is run and closed in one thread.
        workers: Threads, at least 1; each holds at most `ITEMS_AHEAD` items, and the one that it is making.

    Raises:
        Exception: Whatever an iterator raises, after the items before it.
    """
    stop = threading.Event()
    waiting = iter(sources)
    running: deque[_Thread[T]] = deque()

    def start_one() -> None:
        source = next(waiting, None)
        if source is not None:
            running.append(_Thread(source, stop))

    try:
        for _ in range(workers):
            start_one()
        while running:
            yield from running[0].items()
            running.popleft().join()
            start_one()
    finally:
        stop.set()
        for thread in running:
            thread.join()
