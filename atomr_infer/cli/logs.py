"""Logging of the command: one line per event, on standard error."""

from __future__ import annotations

import logging
import sys

_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


def configure_logging(level: str) -> None:
    """Send everything of ``level`` and above to standard error.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    logging.basicConfig(
        level=level.upper(), format=_FORMAT, datefmt="%H:%M:%S", stream=sys.stderr
    )
