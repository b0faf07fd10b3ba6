"""The usage ledger: a row for each deployment that a finished request was made on.

One SQLite database, a file or in memory.  Rows are written many at once, in a
transaction, by whoever calls :meth:`UsageStore.add`: what is not written yet is lost
with the process, what is written stays.  Rows that are too old, or too many, go.

Everything here blocks; it runs in a thread, one call at a time.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import msgspec

from atomr_infer.model.prices import PICO_PER_MICRO
from atomr_infer.store.opening import open_database
from atomr_infer.store.trouble import StoreError, remedy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_AGE_S = 400 * 86_400
"""How long a row is kept: last year's month can be looked up."""

MAX_ROWS = 20_000_000
"""How many are kept, about two gigabytes; the oldest go first."""

MAX_ROWS_IN_MEMORY = 200_000
"""The same where there is no file, about twenty megabytes."""

MAX_NAMES = 5_000
"""How many names a report has; those that cost least are one row together."""

OTHERS = "(others)"

By = Literal["deployment", "key", "team", "model"]
"""What a report is by."""

BY: tuple[str, ...] = get_args(By)

_START = (
    "PRAGMA busy_timeout = 1000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "CREATE TABLE IF NOT EXISTS usage ("
    "number INTEGER PRIMARY KEY AUTOINCREMENT, at_s INTEGER NOT NULL, key TEXT,"
    " team TEXT, deployment TEXT NOT NULL, model TEXT NOT NULL,"
    " input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,"
    " microusd INTEGER, picousd INTEGER NOT NULL DEFAULT 0) STRICT",
    "CREATE INDEX IF NOT EXISTS usage_at ON usage (at_s)",
    "SELECT at_s, key, team, deployment, model, input_tokens, output_tokens, microusd"
    " FROM usage LIMIT 1",
    # It writes, which a file or disk without room or rights refuses.
    "PRAGMA user_version = 1",
)


_SINCE_FIRST = ("picousd", "INTEGER NOT NULL DEFAULT 0")
"""The column that the first version did not have: it rounded each request up."""


class UsageRow(NamedTuple):
    """What a finished request used at one deployment; one is made for each request.

    Attributes:
        at_s: Unix time of its end.
        key: id of the virtual key that asked; None: it showed none.
        team: of that key; None: it has none.
        deployment: who is paid.
        model: what its runtime was asked for.
        input_tokens: cached ones included.
        output_tokens: reasoning included.
        microusd: what it cost, in whole microdollars; None: nobody knows.
        picousd: what it cost beyond that, in millionths of a microdollar.
    """

    at_s: int
    key: str | None
    team: str | None
    deployment: str
    model: str
    input_tokens: int
    output_tokens: int
    microusd: int | None
    picousd: int = 0


class UsageSum(msgspec.Struct, frozen=True):
    """What was used since a time, by one name.

    Attributes:
        name: of the deployment, key, team or model; empty: of none.
        requests: how many.
        input_tokens: in total.
        output_tokens: in total.
        microusd: what those cost whose cost is known, in whole microdollars.
        unpriced: how many have no known cost.
        picousd: what they cost beyond that, in millionths of a microdollar: many that
            cost little are not nothing, and not a microdollar each.
    """

    name: str
    requests: int
    input_tokens: int
    output_tokens: int
    microusd: int
    unpriced: int
    picousd: int = 0

    def plus(self, other: UsageSum) -> UsageSum:
        """Return both together: what two nodes have counted.

        >>> half = UsageSum("a", 1, 10, 5, 0, 0, picousd=500_000)
        >>> half.plus(half).microusd
        1
        """
        more, picousd = divmod(self.picousd + other.picousd, PICO_PER_MICRO)
        return UsageSum(
            self.name,
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.microusd + other.microusd + more,
            self.unpriced + other.unpriced,
            picousd,
        )

    @property
    def usd(self) -> Decimal:
        """The cost in dollars, exactly."""
        picousd = self.microusd * PICO_PER_MICRO + self.picousd
        return Decimal(picousd).scaleb(-12).normalize()


class UsageStore:
    """An open database.

    Args:
        path: its file; None: in memory.
        max_age_s: how long a row is kept.
        max_rows: how many are kept.

    Raises:
        StoreError: the file cannot be opened and written, or is another database.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        max_age_s: int = MAX_AGE_S,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self.where = ":memory:" if path is None else str(path)
        self._max_age_s = max_age_s
        self._max_rows = max_rows
        if path is None:
            self._max_rows = min(max_rows, MAX_ROWS_IN_MEMORY)
        with self._told("opened"):
            self._database = open_database(self.where, _START)
            try:
                self._add_column(*_SINCE_FIRST)
            except BaseException:
                self._database.close()
                raise

    def _add_column(self, name: str, kind: str) -> None:
        """Give a file of an earlier version what it lacks; that one goes on with it."""
        columns = self._database.execute("PRAGMA table_info(usage)").fetchall()
        if name not in [column[1] for column in columns]:
            self._database.execute(f"ALTER TABLE usage ADD COLUMN {name} {kind}")

    def add(self, rows: Sequence[UsageRow]) -> None:
        """Write rows, all or none of them; the oldest beyond the limits go.

        Raises:
            StoreError: they could not be written.
        """
        newest_s = max(row.at_s for row in rows)
        with self._told("written"), self._database as database:
            database.executemany(
                "INSERT INTO usage (at_s, key, team, deployment, model, input_tokens,"
                " output_tokens, microusd, picousd) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            database.execute(
                "DELETE FROM usage WHERE at_s < ?", (newest_s - self._max_age_s,)
            )
            database.execute(
                "DELETE FROM usage WHERE number <= (SELECT max(number) FROM usage) - ?",
                (self._max_rows,),
            )

    def sums(self, by: By, since_s: int) -> list[UsageSum]:
        """Return what was used since a time, by name.

        Raises:
            StoreError: it cannot be read.
            ValueError: there are no such names.
        """
        if by not in BY:
            raise ValueError(f"sums({by!r}): expected one of {', '.join(BY)}")
        query = (
            f"SELECT coalesce({by}, ''), count(*), sum(input_tokens),"
            " sum(output_tokens), coalesce(sum(microusd), 0),"
            " count(*) - count(microusd), sum(picousd) FROM usage WHERE at_s >= ?"
            f" GROUP BY {by} ORDER BY 5 DESC, 7 DESC, 2 DESC, 1"
        )
        with self._told("read"):
            rows = self._database.execute(query, (since_s,)).fetchall()
        return _bounded([_carried(UsageSum(*row)) for row in rows])

    def close(self) -> None:
        """Close it."""
        self._database.close()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            problem = f"the usage ledger {self.where} cannot be {what}"
            raise StoreError(f"{problem}: {remedy(error)}") from error


def _carried(total: UsageSum) -> UsageSum:
    """Return a sum in which what makes whole microdollars is among them."""
    return UsageSum(total.name, 0, 0, 0, 0, 0).plus(total)


def _bounded(sums: list[UsageSum]) -> list[UsageSum]:
    """Put the cheapest together where there are more than a message may hold."""
    if len(sums) <= MAX_NAMES:
        return sums
    rest = UsageSum(OTHERS, 0, 0, 0, 0, 0)
    for each in sums[MAX_NAMES:]:
        rest = rest.plus(each)
    return [*sums[:MAX_NAMES], rest]


def together(reports: Sequence[Sequence[UsageSum]]) -> list[UsageSum]:
    """Return what several nodes have counted as one report.

    >>> one = UsageSum("a", 1, 10, 5, 7, 0)
    >>> [total] = together([[one], [one]])
    >>> total.requests, total.microusd
    (2, 14)
    """
    found: dict[str, UsageSum] = {}
    for report in reports:
        for each in report:
            before = found.get(each.name)
            found[each.name] = each if before is None else before.plus(each)
    return sorted(found.values(), key=lambda each: (-each.usd, each.name))
