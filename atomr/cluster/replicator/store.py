"""The file in which a replicator's shards outlive their node: a SQLite database.

Of each shard there is a snapshot, in parts, and behind it the events that came since,
in the order in which they were applied.  Both are as peers would send them, so a node
that starts again reads its file as it would hear a peer.

What is written at once is there as a whole, or not at all, and the file is this
process's while it is open.

Everything here blocks; it runs in a thread, one call at a time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr.cluster.locked_file import LockedFile
from atomr.cluster.replicator.errors import ShardStoreError
from atomr.crdt import Chunk, Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FORMAT = 1

_DAMAGED = "it is damaged, or no such file; move it away, and peers fill a new one"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS part (shard INTEGER NOT NULL,"
    " number INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (shard, number))",
    "CREATE TABLE IF NOT EXISTS event (number INTEGER PRIMARY KEY AUTOINCREMENT,"
    " shard INTEGER NOT NULL, body BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS event_of_shard ON event (shard, number)",
)

_encode = msgspec.msgpack.Encoder().encode
_decode_part = msgspec.msgpack.Decoder(Chunk).decode
_decode_events = msgspec.msgpack.Decoder(tuple[Event, ...]).decode


@attrs.frozen
class Stored:
    """What is stored of one shard.

    Attributes:
        parts: of its snapshot, in order; empty: there is none.
        batches: events behind it, in order.
    """

    parts: tuple[Chunk, ...] = ()
    batches: tuple[tuple[Event, ...], ...] = ()


class ShardStore:
    """An open file.

    Args:
        path: of the file; made where there is none, in a folder that is there.
        shards: how many shards the replicator has.

    Attributes:
        path: the same.
        written_at_s: Unix time of the last write of an earlier process; None: there
            was none.

    Raises:
        ShardStoreError: it cannot be opened: it is locked, damaged, of another
            number of shards, or the user may not write it.
    """

    def __init__(self, path: Path, shards: int) -> None:
        self.path = path
        self._file = LockedFile(path, _TABLES, damaged=_DAMAGED, error=ShardStoreError)
        with self._file.beginning():
            self._check_about("format", FORMAT)
            self._check_about("shards", shards)
            self.written_at_s = self._about("written_at")

    def _about(self, key: str) -> int | None:
        query = "SELECT value FROM about WHERE key = ?"
        row = self._file.database.execute(query, (key,)).fetchone()
        return None if row is None else int(row[0])

    def _check_about(self, key: str, expected: int) -> None:
        found = self._about(key)
        if found is None:
            self._set_about(key, expected)
        elif found != expected:
            raise ShardStoreError(
                self.path,
                f"its {key} is {found}, and the replicator's {expected}; give the"
                " replicator that of the file, or name another file",
            )

    def _set_about(self, key: str, value: int) -> None:
        self._file.database.execute(
            "INSERT OR REPLACE INTO about VALUES (?, ?)", (key, value)
        )

    def read(self, shard: int) -> Stored:
        """Return what is stored of a shard.

        Raises:
            ShardStoreError: it cannot be read, or is nothing of ours.
        """
        with self._file.reading():
            parts = self._bodies("SELECT body FROM part WHERE shard = ?", shard)
            batches = self._bodies("SELECT body FROM event WHERE shard = ?", shard)
        try:
            return Stored(
                tuple([_decode_part(body) for body in parts]),
                tuple([_decode_events(body) for body in batches]),
            )
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ShardStoreError(self.path, f"{error}; {_DAMAGED}") from error

    def _bodies(self, query: str, shard: int) -> list[bytes]:
        rows = self._file.database.execute(f"{query} ORDER BY number", (shard,))
        return [body for (body,) in rows]

    def write(
        self,
        events: Mapping[int, Sequence[Event]],
        anew: Mapping[int, Sequence[Chunk]],
    ) -> None:
        """Write events, and shards as a whole; all of it, or nothing.

        Args:
            events: by shard; behind what is stored of it.
            anew: snapshots, by shard; in place of all that is stored of it.

        Raises:
            ShardStoreError: it could not be written; nothing was.
        """
        database = self._file.database
        with self._file.writing():
            for shard, parts in anew.items():
                database.execute("DELETE FROM event WHERE shard = ?", (shard,))
                database.execute("DELETE FROM part WHERE shard = ?", (shard,))
                database.executemany(
                    "INSERT INTO part VALUES (?, ?, ?)",
                    [(shard, part.number, _encode(part)) for part in parts],
                )
            database.executemany(
                "INSERT INTO event (shard, body) VALUES (?, ?)",
                [(shard, _encode(tuple(some))) for shard, some in events.items()],
            )
            self._set_about("written_at", int(time.time()))

    def close(self) -> None:
        """Close the file; another process may open it then."""
        self._file.close()
