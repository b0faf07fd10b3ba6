"""Stored responses: what a later request goes on from by ``previous_response_id``.

One SQLite database, a file or in memory.  A response is kept with the whole
conversation in front of it, so that going on needs one look-up, and with its
owner, so that nobody goes on from another's.

Of what an upstream keeps (a response that was passed on as it came) there is the
name and the owner only.

The file is written in WAL mode, each response in a transaction of its own: after
a kill or a full disk there are whole responses or none.  Calls run in a thread,
one at a time.

Nobody's answer waits long for a database that another process has locked: the
first one who meets the lock waits a second, those behind it two at most, and
whoever comes later is told at once, until it is open again.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from atomr_infer.errors import ConfigError
from atomr_infer.store.opening import open_database
from atomr_infer.store.trouble import Trouble, remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

T = TypeVar("T")

MAX_RESPONSES = 10_000
"""How many are kept; the oldest go first."""

MAX_BYTES = 1024 * 1024 * 1024
"""How much is kept; pictures stand in conversations as base64."""

MAX_AGE_S = 30 * 86_400
"""How long one is kept; OpenAI keeps them as long."""

MAX_NAMES = 200_000
"""How many names of what upstreams keep are remembered; the oldest go first."""

_SETTING = "response_store"

_LOCK_MS = 1000
_TURN_S = 2.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS response (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner BLOB NOT NULL,
    created_s INTEGER NOT NULL,
    items BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT
"""

_NAMES_SCHEMA = """
CREATE TABLE IF NOT EXISTS upstream_name (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    owner BLOB NOT NULL,
    created_s INTEGER NOT NULL,
    UNIQUE (name, owner)
) STRICT
"""

# What a start tries, so that a store that cannot be used is no surprise later:
# the last one writes, which a file or disk without room or rights refuses.
_START = (
    f"PRAGMA busy_timeout = {_LOCK_MS}",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    _SCHEMA,
    _NAMES_SCHEMA,
    "SELECT id, owner, created_s, items, body FROM response LIMIT 1",
    "SELECT name, owner, created_s FROM upstream_name LIMIT 1",
    "PRAGMA user_version = 1",
)


@attrs.frozen(kw_only=True)
class StoredResponse:
    """A response that may be gone on from.

    Attributes:
        id: ``resp_...``.
        owner: who may see it: a digest of the key that asked; b"" where the
            gateway has no keys.
        created_s: Unix time in seconds.
        items: the conversation up to and with this response: a JSON array of
            the items of OpenAI's Responses format.
        body: the response object, JSON.
    """

    id: str
    owner: bytes
    created_s: int
    items: bytes = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)


class ResponseStore:
    """Keeps responses.  Close it when it is not needed any more.

    Attributes:
        where: its file, or ``:memory:``.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_responses: int = MAX_RESPONSES,
        max_bytes: int = MAX_BYTES,
        max_age_s: int = MAX_AGE_S,
        max_names: int = MAX_NAMES,
    ) -> None:
        """Open or make the database.

        Args:
            path: its file; None: in memory, for as long as the process lives.
            max_responses: how many are kept.
            max_bytes: how large the database may become.
            max_age_s: how long one is kept.
            max_names: how many names of what upstreams keep are remembered.

        Raises:
            ConfigError: the file cannot be opened and written, or is another
                database.
        """
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._max_names = max_names
        self._limiter = trio.CapacityLimiter(1)
        self.where = where = ":memory:" if path is None else str(path)
        folder = Path(where).parent
        if _is_missing(folder):
            problem = f"the response store {where} has no folder; make it: mkdir -p"
            raise ConfigError(f"{problem} {folder}", setting=_SETTING)
        self._reading = Trouble(f"the response store {where} cannot be read")
        self._writing = Trouble(f"the response store {where} cannot be written")
        self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            return open_database(self.where, _START)
        except sqlite3.Error as error:
            problem = f"the response store {self.where} cannot be opened"
            text = f"{problem}: {remedy(error)}"
            raise ConfigError(text, setting=_SETTING) from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    async def put(self, response: StoredResponse) -> None:
        """Keep a response; the oldest one beyond the limits goes.

        Raises:
            StoreError: it could not be written; nothing was changed.

        Cancellation: waits for the write.
        """
        await self._run(self._writing, partial(self._put, response))

    async def get(
        self, name: str, *, owner: bytes, now_s: int
    ) -> StoredResponse | None:
        """Return a response; None when there is none of that name for its owner.

        Args:
            name: its id.
            owner: who asks.
            now_s: Unix time in seconds: what is too old is not there.

        Raises:
            StoreError: it could not be read.
        """
        oldest_s = now_s - self._max_age_s
        return await self._run(self._reading, partial(self._get, name, owner, oldest_s))

    async def delete(self, name: str, *, owner: bytes) -> bool:
        """Forget a response; False when there is none of that name.

        Raises:
            StoreError: it could not be written; nothing was changed.
        """
        return await self._run(self._writing, partial(self._delete, name, owner))

    async def remember(
        self, names: Collection[str], *, owner: bytes, now_s: int
    ) -> None:
        """Note whose those names are of what an upstream keeps.

        Raises:
            StoreError: it could not be written; nothing was changed.

        Cancellation: waits for the write.
        """
        await self._run(self._writing, partial(self._remember, names, owner, now_s))

    async def unknown(
        self, names: Collection[str], *, owner: bytes, now_s: int
    ) -> frozenset[str]:
        """Return the names that were not remembered for this owner.

        Raises:
            StoreError: it could not be read.
        """
        oldest_s = now_s - self._max_age_s
        known = await self._run(
            self._reading, partial(self._known, names, owner, oldest_s)
        )
        return frozenset(names) - known

    async def _run(self, trouble: Trouble, work: Callable[[], T]) -> T:
        """Do something in a thread, in its turn.

        Raises:
            StoreError: it failed, or its turn did not come.
        """
        in_trouble = trouble.told is not None
        try:
            # Only the wait for the turn can end early: what has begun is finished.
            with trio.move_on_after(_TURN_S):
                value = await trio.to_thread.run_sync(
                    self._work, work, in_trouble, limiter=self._limiter
                )
                trouble.over()
                return value
        except sqlite3.Error as error:
            raise trouble.met(remedy(error)) from error
        raise trouble.met(f"too much of it waits, for more than {_TURN_S:g} s")

    # --- in a thread ----------------------------------------------------------

    def _work(self, work: Callable[[], T], in_trouble: bool) -> T:  # noqa: FBT001 - by the thread
        lock_ms = 0 if in_trouble else _LOCK_MS
        self._database.execute(f"PRAGMA busy_timeout = {lock_ms}").fetchall()
        return work()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._database:
            yield self._database

    def _put(self, response: StoredResponse) -> None:
        values = attrs.astuple(response)
        oldest_s = response.created_s - self._max_age_s
        with self._transaction() as database:
            database.execute(
                "INSERT INTO response (id, owner, created_s, items, body)"
                " VALUES (?, ?, ?, ?, ?)",
                values,
            )
            database.execute("DELETE FROM response WHERE created_s < ?", (oldest_s,))
            database.execute(
                "DELETE FROM response WHERE number <="
                " (SELECT max(number) FROM response) - ?",
                (self._max_responses,),
            )
            while self._used_bytes() > self._max_bytes and self._drop_oldest():
                pass

    def _used_bytes(self) -> int:
        """Return the bytes of the pages in use, which SQLite knows without a look."""
        pages, free, page_bytes = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def _drop_oldest(self) -> bool:
        """Delete the oldest response; False when there is none."""
        cursor = self._database.execute(
            "DELETE FROM response WHERE number = (SELECT min(number) FROM response)"
        )
        return cursor.rowcount > 0

    def _get(self, name: str, owner: bytes, oldest_s: int) -> StoredResponse | None:
        found = self._database.execute(
            "SELECT id, owner, created_s, items, body FROM response"
            " WHERE id = ? AND owner = ? AND created_s >= ?",
            (name, owner, oldest_s),
        ).fetchone()
        if found is None:
            return None
        identity, kept_for, created_s, items, body = found
        return StoredResponse(
            id=identity, owner=kept_for, created_s=created_s, items=items, body=body
        )

    def _delete(self, name: str, owner: bytes) -> bool:
        with self._transaction() as database:
            cursor = database.execute(
                "DELETE FROM response WHERE id = ? AND owner = ?", (name, owner)
            )
        return cursor.rowcount > 0

    def _remember(self, names: Collection[str], owner: bytes, now_s: int) -> None:
        with self._transaction() as database:
            database.executemany(
                "INSERT OR REPLACE INTO upstream_name (name, owner, created_s)"
                " VALUES (?, ?, ?)",
                [(name, owner, now_s) for name in names],
            )
            database.execute(
                "DELETE FROM upstream_name WHERE number <="
                " (SELECT max(number) FROM upstream_name) - ?",
                (self._max_names,),
            )

    def _known(self, names: Collection[str], owner: bytes, oldest_s: int) -> set[str]:
        return {
            name
            for name in names
            if self._database.execute(
                "SELECT 1 FROM upstream_name"
                " WHERE name = ? AND owner = ? AND created_s >= ?",
                (name, owner, oldest_s),
            ).fetchone()
        }


def _is_missing(folder: Path) -> bool:
    try:
        return not folder.is_dir()
    except OSError:
        return False  # nobody lets us look: opening the file says what is wrong
