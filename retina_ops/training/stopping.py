"""SIGINT and SIGTERM while a run goes on: it ends where its state can be saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECOND = 2.0  # seconds after which another Ctrl-C is meant as one: launchers repeat signals at once


class StopRequested(BaseException):
    """A signal came. ``number`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class StopSignals:
    """Notes SIGINT and SIGTERM in the ``with`` statement, in place of ending the process.

    A second Ctrl-C, two seconds later or more, acts as if nothing had been noted. Nothing is noted outside of the main
    thread, where Python handles no signals, and a signal that the process ignores stays ignored.

    Attributes:
        received: number of the first signal, 0 before.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def check(self) -> None:
        """Raises `StopRequested` if a signal came."""
        if self.received:
            raise StopRequested(self.received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.received, self._since = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._since >= _SECOND:
            raise KeyboardInterrupt


@contextmanager
def ignored_signals() -> Iterator[None]:
    """Ignores SIGINT and SIGTERM in the ``with`` statement, so that a state is saved to its end."""
    is_main = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS} if is_main else {}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def end_process(number: int, message: str) -> NoReturn:
    """Raises KeyboardInterrupt for SIGINT, otherwise SystemExit with the status of the signal, 128 + ``number``."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt(message)
    raise SystemExit(128 + number)
