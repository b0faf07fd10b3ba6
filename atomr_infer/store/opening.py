"""How a database is opened that several processes may open at once."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATIENCE_S = 1.0
_PAUSE_S = 0.01
_PRIMARY_CODE = 0xFF


def open_database(where: str, statements: Iterable[str]) -> sqlite3.Connection:
    """Open a database, run what a start tries, and try again where it is locked.

    Where two connections switch a new file to a write-ahead log in the same moment,
    SQLite refuses one of them at once, whatever its ``busy_timeout`` says: it cannot
    know that the other one will not wait for it.

    Args:
        where: its file, or ``:memory:``.
        statements: each may be run again.

    Raises:
        sqlite3.Error: it cannot be opened, or is locked for a second and more.
    """
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        database = sqlite3.connect(where, check_same_thread=False)
        try:
            for statement in statements:
                database.execute(statement).fetchall()
        except sqlite3.OperationalError as error:
            database.close()
            is_busy = error.sqlite_errorcode & _PRIMARY_CODE == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > until_s:
                raise
            time.sleep(_PAUSE_S)
        except BaseException:
            database.close()
            raise
        else:
            return database
