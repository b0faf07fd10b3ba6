"""The file in which budgets outlive their node: a SQLite database.

What is written at once is there as a whole, or not at all, and the file is this
process's while it is open: two with one file would each spend the same rights.

Everything here blocks; it runs in a thread, one call at a time.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

import msgspec

from atomr.cluster.budgets.errors import LedgerStoreError
from atomr.cluster.budgets.kept import Kept, Stored
from atomr.cluster.locked_file import LockedFile
from atomr.gossip.ledger import decode_record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from atomr.cluster.budgets.kept import Write

FORMAT = 1

_DAMAGED = (
    "it is damaged, or no such file; move it away, and what this node held comes back"
    " by a reclaim, or with the next period"
)
_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value NOT NULL)",
    "CREATE TABLE IF NOT EXISTS voter (name TEXT PRIMARY KEY, file TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS budget (name TEXT PRIMARY KEY, kept BLOB NOT NULL)",
)

_encode = msgspec.msgpack.Encoder(order="sorted").encode
_decode = msgspec.msgpack.Decoder(Kept).decode


def _read_all(
    rows: Iterable[tuple[str, bytes]],
) -> tuple[dict[str, Kept], dict[str, str]]:
    """Return what is kept of each budget, and what is wrong with the others."""
    budgets, damaged = dict[str, Kept](), dict[str, str]()
    for name, data in rows:
        try:
            kept = _decode(data)
            decode_record(kept.record)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            # The others are whole: one is no reason to spend from none.
            damaged[name] = str(error)
        else:
            budgets[name] = kept
    return budgets, damaged


class LedgerStore:
    """An open file.

    Args:
        path: of the file; made where there is none, in a folder that is there.

    Attributes:
        path: the same.

    Raises:
        LedgerStoreError: it cannot be opened: it is locked, damaged, no such file, or
            the user may not write it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LockedFile(path, _TABLES, damaged=_DAMAGED, error=LedgerStoreError)
        with self._file.beginning():
            found = self._about().get("format")
            if found is None:
                self._set_about(
                    format=FORMAT, file=secrets.token_hex(8), made_at_s=time.time()
                )
            elif found != FORMAT:
                problem = f"its format is {found}, and ours {FORMAT}"
                raise LedgerStoreError(self.path, problem)
            else:
                # A file that cannot be written says so now.
                self._set_about(format=FORMAT)

    def _about(self) -> dict[str, str | int | float]:
        return dict(self._file.database.execute("SELECT key, value FROM about"))

    def _set_about(self, **values: str | float) -> None:
        self._file.database.executemany(
            "INSERT OR REPLACE INTO about VALUES (?, ?)", values.items()
        )

    def read(self) -> Stored:
        """Return what is stored.

        Raises:
            LedgerStoreError: it cannot be read, or is nothing of ours.
        """
        with self._file.reading():
            about = self._about()
            heard = dict(self._file.database.execute("SELECT name, file FROM voter"))
            rows = self._file.database.execute(
                "SELECT name, kept FROM budget"
            ).fetchall()
        budgets, damaged = _read_all(rows)
        try:
            return Stored(
                file=str(about["file"]),
                made_at_s=float(about["made_at_s"]),
                is_vouched=bool(about.get("is_vouched", 0)),
                closed_at_s=float(about.get("closed_at_s", 0.0)),
                heard=heard,
                budgets=budgets,
                damaged=damaged,
            )
        except (LookupError, ValueError, TypeError) as error:
            raise LedgerStoreError(self.path, f"{error}; {_DAMAGED}") from error

    def write(self, write: Write) -> None:
        """Write what has changed; all of it, or nothing.

        Raises:
            LedgerStoreError: it could not be written; nothing was.
        """
        kept = [(name, _encode(kept)) for name, kept in write.budgets.items()]
        closed = [(name,) for name in write.closed]
        execute = self._file.database.executemany
        with self._file.writing():
            execute("DELETE FROM budget WHERE name = ?", closed)
            execute("INSERT OR REPLACE INTO budget VALUES (?, ?)", kept)
            execute("INSERT OR REPLACE INTO voter VALUES (?, ?)", write.heard.items())
            self._set_about(
                is_vouched=int(write.is_vouched), closed_at_s=write.closed_at_s
            )

    def close(self) -> None:
        """Close the file; another process may open it then."""
        self._file.close()
