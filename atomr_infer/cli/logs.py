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
    logging.basicConfig(
        level=level.upper(),
        format=_FORMAT,
        datefmt="%H:%M:%S",
        handlers=[_StderrHandler()],
    )
    if level.upper() != "DEBUG":
        logging.getLogger(_ENGINE_OUTPUT).setLevel(logging.WARNING)


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
