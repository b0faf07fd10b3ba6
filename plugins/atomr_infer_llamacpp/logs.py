"""What llama.cpp logs: warnings and errors, into the engine's output."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import llama_cpp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WARN, _CONTINUED = 3, 5

_KEPT_LINES = 4
"""Enough for why a model is not loaded, which is said from the inside out."""


class _Lines:
    """Passes on what is of a level that counts, with what continues it."""

    def __init__(self) -> None:
        self._told = False
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)
        self.hushed: Callable[[], bool] = _never

    @property
    def last(self) -> str:
        """What went wrong, as it said it last; empty: it has said nothing."""
        return " | ".join(line.strip() for line in self._last if line.strip())

    def forget(self) -> None:
        self._last.clear()

    def take(self, level: int, text: bytes) -> None:
        if level != _CONTINUED:
            self._told = level >= _WARN and not self.hushed()
        if self._told:
            words = text.decode(errors="replace")
            if level == _CONTINUED and self._last:
                self._last[-1] += words
            else:
                self._last.append(words)
            sys.stderr.write(words)


def _never() -> bool:
    return False


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator] # the package has no types for it
def _log(level: int, text: bytes, _: object) -> None:
    _LINES.take(level, text)


_LINES = _Lines()


def said_last() -> str:
    """What it said last of what is wrong, in a line."""
    return _LINES.last or "nothing"


def forget_said() -> None:
    """Forget what it has said, before something else is tried."""
    _LINES.forget()


@contextmanager
def hushed_when(stopped: Callable[[], bool]) -> Iterator[None]:
    """Drop what it says of a run that was stopped, as of a failure."""
    _LINES.hushed = stopped
    try:
        yield
    finally:
        _LINES.hushed = _never


def log_warnings() -> None:
    """Have the library say what is wrong, and nothing else."""
    # It keeps the address of the callback, which stays as long as this module.
    llama_cpp.llama_log_set(_log, None)
