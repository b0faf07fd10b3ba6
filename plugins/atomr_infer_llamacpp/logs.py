"""What llama.cpp logs: warnings and errors, into the engine's output."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import llama_cpp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WARN, _CONTINUED = 3, 5


class _Lines:
    """Passes on what is of a level that counts, with what continues it."""

    def __init__(self) -> None:
        self._told = False
        self.hushed: Callable[[], bool] = _never

    def take(self, level: int, text: bytes) -> None:
        if level != _CONTINUED:
            self._told = level >= _WARN and not self.hushed()
        if self._told:
            sys.stderr.write(text.decode(errors="replace"))


def _never() -> bool:
    return False


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator] # the package has no types for it
def _log(level: int, text: bytes, _: object) -> None:
    _LINES.take(level, text)


_LINES = _Lines()


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
