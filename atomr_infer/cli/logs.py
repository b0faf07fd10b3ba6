"""Logging of the command: one line per event, on standard error."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

# What engines write themselves, line by line.  It says how a model is laid out
# in memory, which nobody wants to read who only serves it; what an engine wrote
# before it failed is in its error.
_ENGINE_OUTPUT = "atomr_infer.engine"


def configure_logging(level: str) -> None:
    """Send everything of ``level`` and above to standard error.

    The engines' own output is logged with ``debug`` only.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    handler = _StderrHandler()
    handler.setFormatter(_Formatter(_FORMAT, datefmt="%H:%M:%S"))
    logging.basicConfig(
        level=level.upper(),
        handlers=[handler],
    )
    # What no line shows is not looked up: the caller's frame and the thread.
    logging._srcfile = None  # noqa: SLF001 - as logging's own how-to says
    logging.logThreads = logging.logProcesses = False
    logging.logMultiprocessing = False
    if level.upper() != "DEBUG":
        logging.getLogger(_ENGINE_OUTPUT).setLevel(logging.WARNING)


class _Formatter(logging.Formatter):
    """Formats the time once a second: each request is a line."""

    _second = -1
    _shown = ""

    def formatTime(  # noqa: N802 - the base class's name
        self, record: logging.LogRecord, datefmt: str | None = None
    ) -> str:
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._shown = super().formatTime(record, datefmt)
        return self._shown


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the time.

    A progress bar replaces it while it is shown, so that lines go above the bar
    and not into it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:  # a parent closed it before it started us
            return
        self.setStream(sys.stderr)
        super().emit(record)
