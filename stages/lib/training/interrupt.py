"""A polite end for long work: SIGTERM and Ctrl-C are noted, not obeyed at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType


@contextmanager
def stop_requested() -> Iterator[Event]:
    """An event that the first SIGTERM or Ctrl-C sets; a second one acts as if nobody had listened."""
    stop = Event()
    asked = (signal.SIGTERM, signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        stop.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    before = {number: signal.signal(number, note) for number in asked}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
