"""A function over many records on every core, in order."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import TypeVar

CHUNK = 2000  # records that travel to a worker together
Record = TypeVar("Record")
Result = TypeVar("Result")


def in_chunks(function: Callable[[list[Record]], Result], records: Iterable[Record]) -> Iterator[Result]:
    """Yield `function(chunk)` for each chunk of the records; a few records are done in this process."""
    chunks = _chunks(iter(records))
    first = next(chunks, [])
    if len(first) < CHUNK:
        yield function(first)
        return
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=_leave_with, initargs=(os.getpid(),)) as pool:
        yield from pool.map(function, [first, *chunks])


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, CHUNK)):
        yield chunk


def _leave_with(parent: int) -> None:
    """Workers of a killed stage would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
