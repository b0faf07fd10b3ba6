"""The root of the error tree, and how errors show values."""

from __future__ import annotations

import reprlib

# A request may hold a megabyte of prompt; a log line must not.
_SHORT = reprlib.Repr()  # its keyword arguments came with Python 3.12
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 160


def short(value: object) -> str:
    """Return ``repr(value)`` cut to a length fit for a log line; never raises."""
    try:
        return _SHORT.repr(value)
    except Exception as error:  # noqa: BLE001 - a value's own code; said in its place
        return f"<{type(value).__name__}: repr raised {type(error).__name__}>"


class AtomrError(Exception):
    """Root of all errors that atomr and what is built on it raise."""


class AtomrInternalError(AtomrError):
    """A bug in atomr itself; please report it with the traceback."""
