"""A SQLite file that one process has, and whose errors say what to do about them.

What is written at once is one transaction, in WAL mode and synced: after a kill or a
loss of power all of it is there, or none.  The file is locked for as long as it is
open: two processes with one file would each write over what the other knows.

Everything here blocks; it runs in a thread, one call at a time.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from atomr.errors import AtomrError

_LOCKED = "another process has it open; end that one, or name another file"
_RIGHTS = "this user must be able to write it and its folder"
_REMEDIES = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_PERM: _RIGHTS,
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _RIGHTS,
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "its disk refuses: look for room, quotas and limits",
}
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,  # a table that is not as we made it
}

_START = (
    # Before the first read: the lock is taken with it, and kept.
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
)


class LockedFile:
    """An open file.

    Attributes:
        path: of the file.
        database: the connection to it; transactions are begun and ended here.
        damaged: what to do about a file that is damaged.
    """

    def __init__(
        self,
        path: Path,
        tables: Iterable[str],
        *,
        damaged: str,
        error: Callable[[Path, str], AtomrError],
    ) -> None:
        """Open it.

        Args:
            path: of the file; made where there is none, in a folder that is there.
            tables: statements that make them where they are not there.
            damaged: what to do about a file that is.
            error: makes what is raised, of the path and a problem.

        Raises:
            AtomrError: that; the file cannot be opened: it is locked, no such file,
                or the user may not write it.
        """
        self.path = path
        self.damaged = damaged
        self._error = error
        with self.reading():
            self.database = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=0
            )
        try:
            with self.reading():
                for statement in (*_START, *tables):
                    self.database.execute(statement).fetchall()
        except BaseException:
            self.database.close()
            raise

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Write what a file must have before it is used, then see that it is sound.

        Its lock is taken with that, and kept until it is closed; where anything is
        wrong it is closed.
        """
        try:
            with self.writing():
                yield
            self._check_sound()
        except BaseException:
            self.database.close()
            raise

    def _check_sound(self) -> None:
        with self.reading():
            (found,) = self.database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise self._error(self.path, f"{found}; {self.damaged}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write all that is written in the block, or nothing."""
        with self.reading():
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.database.execute("COMMIT")
            except BaseException:
                # A disk that refuses may have ended it already.
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise what goes wrong with the file with what to do about it."""
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = self.damaged if code in _DAMAGED else _REMEDIES.get(code)
            text = str(error) if advice is None else f"{error}; {advice}"
            raise self._error(self.path, text) from error

    def close(self) -> None:
        """Close the file; another process may open it then."""
        self.database.close()
