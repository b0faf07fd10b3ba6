"""What is wrong with a database, said once, with what to do about it.

A disk that is full fails every write until somebody makes room; the log says it
once, and once more when it is over.
"""

from __future__ import annotations

import logging
import sqlite3

from atomr.errors import AtomrError

__all__ = ["StoreError", "Trouble", "remedy"]

log = logging.getLogger(__name__)

_RIGHTS = "this user must be able to write the file and its folder"
_HELD = "another process has locked it; end that one, or name another file"
_DAMAGED = "it is damaged, or no such database; move it away and a new one is made"

# By SQLite's primary result code.
_REMEDIES = {
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_PERM: _RIGHTS,
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_ERROR: _DAMAGED,  # a table that is not as we made it
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "its disk refuses: look for room, quotas and limits",
}


class StoreError(AtomrError):
    """A store could not be read or written; nothing of it was changed."""


class Trouble:
    """What is wrong with one kind of work on a store, as long as it is.

    Attributes:
        told: what the log was told last; None: all is well.
    """

    def __init__(self, what: str) -> None:
        """Begin with nothing wrong.

        Args:
            what: the work, as in "the store x cannot be read".
        """
        self._what = what
        self.told: str | None = None

    def met(self, why: str) -> StoreError:
        """Take a failure; return the error for whoever waits."""
        text = f"{self._what}: {why}"
        if text != self.told:
            self.told = text
            log.error("%s", text)
        return StoreError(text)

    def over(self) -> None:
        """Take a success."""
        if self.told is not None:
            log.warning("works again: %s", self.told)
            self.told = None


def remedy(error: sqlite3.Error) -> str:
    """Return what SQLite said, and what to do about it.

    >>> remedy(sqlite3.ProgrammingError("closed"))
    'closed'
    """
    advice = _REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return f"{error}" if advice is None else f"{error}; {advice}"
