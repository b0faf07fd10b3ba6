"""The usage ledger of a node, and the report of all nodes together.

A request that ends leaves its rows in memory, and goes on; a process writes them, many
at once, each second.  A process that is killed loses what ended in its last second.

Nodes ask each other for their sums, so that a report at any of them is of all.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import attrs
import msgspec
import trio

from atomr.core.child_spec import ChildSpec
from atomr.errors import LinkError
from atomr.http2 import Service
from atomr.process import PlainProcess
from atomr_infer.model.asker import Asker
from atomr_infer.model.cost import Cost
from atomr_infer.model.prices import PICO_PER_MICRO
from atomr_infer.serving.requests.served import Spent
from atomr_infer.store.trouble import StoreError
from atomr_infer.store.usage import (
    By,
    UsageRow,
    UsageStore,
    UsageSum,
    together,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from atomr.cluster import Peers
    from atomr.http2 import Link
    from atomr_infer.serving.roster import Away

T = TypeVar("T")

log = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
MAX_WAITING = 100_000
"""Requests that wait to be written; past that the oldest are lost, and counted."""

_AT_ONCE = 500
"""So many are made into rows before others have their turn: two milliseconds."""

_RETRY_S = 10.0
_END_S = 5.0
_ASK_S = 5.0
_SERVICE = "usage"


class AskSums(msgspec.Struct, frozen=True, array_like=True):
    """Asks a node for its sums.

    Attributes:
        by: what they are by.
        since_s: since when, in Unix time.
    """

    by: Literal["deployment", "key", "team", "model"]
    since_s: int


class Sums(msgspec.Struct, frozen=True, array_like=True):
    """Answers it.

    Attributes:
        sums: what was used there.
        problem: why they are not all; empty: they are.
    """

    sums: list[UsageSum]
    problem: str = ""


@attrs.frozen
class UsageReport:
    """What was used since a time.

    Attributes:
        sums: by name, of all nodes together.
        nodes: those that were asked and have answered.
        missing: nodes that have not, or are not there, with the reason.
        away_since_s: since when those are not there that are missing for that, Unix
            time.
    """

    sums: tuple[UsageSum, ...]
    nodes: tuple[str, ...]
    missing: Mapping[str, str]
    away_since_s: Mapping[str, int] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Finished:
    """A request that has ended.

    Attributes:
        at_s: Unix time.
        spent: of its attempts.
        asker: who asked; None: nobody whom we know.
        cost: of all attempts together; None: nobody knows.
    """

    at_s: int
    spent: list[Spent]
    asker: Asker | None
    cost: Cost | None


class UsageLedger:
    """A node's usage ledger, as a part of its cluster.

    Attributes:
        waiting: requests that are not written yet.
        lost: requests that were dropped, as too many waited.
    """

    shares_life: ClassVar[bool] = False

    def __init__(
        self,
        path: Path | None,
        *,
        cost: Callable[[list[Spent]], Cost | None],
        away: Callable[[], Iterable[Away]] = tuple,
        store: Callable[[Path | None], UsageStore] = UsageStore,
    ) -> None:
        """Make a ledger; its file is opened when there is something to write.

        Args:
            path: of its file; None: in memory.
            cost: says what attempts cost together; None: nobody knows.
            away: says which nodes are not there, and have counted all the same.
            store: opens the file.
        """
        self.waiting: deque[Finished] = deque()
        self.lost = 0
        self._cost = cost
        self._away = away
        self._path = path
        self._make = store
        self._store: UsageStore | None = None
        self._thread = trio.CapacityLimiter(1)
        self._told = ""
        self._lock = trio.Lock()
        self._noted = trio.Event()
        self._peers: Peers | None = None

    # --- as a part of a cluster -------------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return what is done with peers' messages."""
        return {_SERVICE: Service(AskSums, answer=self._answer)}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        self._peers = peers
        return ChildSpec(id=_SERVICE, start=lambda: PlainProcess(self.run))

    async def _answer(self, _: Link, asked: AskSums) -> Sums:
        try:
            return Sums(await self._own(asked.by, asked.since_s))
        except StoreError as error:
            return Sums([], str(error))

    # --- writing ----------------------------------------------------------------------

    def note(self, spent: list[Spent], asker: Asker | None, cost: Cost | None) -> None:
        """Take what a finished request used; does not wait.

        Args:
            spent: of its attempts; is not changed any more.
            asker: who asked; None: nobody whom we know.
            cost: of all attempts together; None: nobody knows.
        """
        if not spent:
            return
        if len(self.waiting) >= MAX_WAITING:
            self.waiting.popleft()
            self.lost += 1
        self.waiting.append(Finished(int(time.time()), spent, asker, cost))
        self._noted.set()

    async def run(self) -> None:
        """Write what waits, again and again; never returns.

        Cancellation: what waits is written first, within some seconds.
        """
        try:
            while True:
                await self._noted.wait()
                await trio.sleep(WRITE_EVERY_S)
                self._noted = trio.Event()
                if not await self._write():
                    await trio.sleep(_RETRY_S)
                    self._noted.set()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_S):
                await self._write()
                await self._close()

    async def _write(self) -> bool:
        """Write what waits; False: it could not be."""
        async with self._lock:
            # What comes meanwhile is written the next time.
            for _ in range(0, max(1, len(self.waiting)), _AT_ONCE):
                if not await self._write_rows():
                    return False
            return True

    async def _write_rows(self) -> bool:
        finished = list(islice(self.waiting, _AT_ONCE))
        rows = [row for each in finished for row in self._rows(each)]
        try:
            store = await self._opened()
            if rows:
                # Whoever is cancelled here would not know whether they are there.
                with trio.CancelScope(shield=True):
                    await self._in_thread(lambda: store.add(rows))
        except StoreError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.error("%s", error)  # noqa: TRY400 - it is no bug of ours
            return False
        if self._told:
            log.warning("works again: %s", self._told)
            self._told = ""
        for each in finished:
            # Some of it may have been dropped meanwhile.
            if self.waiting and self.waiting[0] is each:
                self.waiting.popleft()
        return True

    def _rows(self, finished: Finished) -> list[UsageRow]:
        """Return a row for each model of a deployment that was asked."""
        asker, spent = finished.asker, finished.spent
        key, team = (None, None) if asker is None else (asker.key, asker.team)
        if len(spent) == 1:  # as most have
            [only] = spent
            return [
                UsageRow(
                    finished.at_s,
                    key,
                    team,
                    only.deployment,
                    only.model,
                    only.usage.prompt_tokens,
                    only.usage.output_tokens,
                    *_amount(finished.cost),
                )
            ]
        asked: dict[tuple[str, str], list[Spent]] = {}
        for each in spent:
            asked.setdefault((each.deployment, each.model), []).append(each)
        return [
            UsageRow(
                finished.at_s,
                key,
                team,
                deployment,
                model,
                sum(each.usage.prompt_tokens for each in own),
                sum(each.usage.output_tokens for each in own),
                *_amount(self._cost(own)),
            )
            for (deployment, model), own in asked.items()
        ]

    async def _opened(self) -> UsageStore:
        if self._store is None:
            self._store = await self._in_thread(lambda: self._make(self._path))
        return self._store

    async def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await self._in_thread(store.close)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        if self._path is None:
            await trio.lowlevel.checkpoint()
            return call()  # memory does not block
        return await trio.to_thread.run_sync(call, limiter=self._thread)

    # --- reading ----------------------------------------------------------------------

    async def report(self, by: By, since_s: int) -> UsageReport:
        """Return what all nodes together used since a time.

        Raises:
            StoreError: this node's ledger cannot be read.
            ValueError: there are no such names.
        """
        assert self._peers is not None, "the node is open"
        peers = self._peers
        found = {peers.origin.name: await self._own(by, since_s)}
        missing: dict[str, str] = {}

        async def ask(name: str) -> None:
            peer = peers.get(name)
            if peer is None:
                missing[name] = "it is not up"
                return
            try:
                answer = await peers.call(
                    peer,
                    _SERVICE,
                    AskSums(by, since_s),
                    returns=Sums,
                    timeout_s=_ASK_S,
                )
            except LinkError as error:
                missing[name] = str(error)
                return
            if answer.problem:
                missing[name] = answer.problem
            else:
                found[name] = answer.sums

        async with trio.open_nursery() as nursery:
            for peer in peers.all():
                nursery.start_soon(ask, peer.name)
        gone = self._gone(since_s, found.keys() | missing.keys())
        missing |= {each.name: each.why for each in gone}
        return UsageReport(
            sums=tuple(together(list(found.values()))),
            nodes=tuple(sorted(found)),
            missing=missing,
            away_since_s={each.name: each.since_s for each in gone},
        )

    def _gone(self, since_s: int, asked: Collection[str]) -> list[Away]:
        """Return who may have counted something since then, and is not there.

        One that has left has counted nothing since; of one that is out of sight
        nobody knows.
        """
        return [
            each
            for each in self._away()
            if each.name not in asked and not (each.has_left and each.since_s < since_s)
        ]

    async def _own(self, by: By, since_s: int) -> list[UsageSum]:
        await self._write()  # what has just ended is asked for, too
        store = await self._opened()
        return await self._in_thread(lambda: store.sums(by, since_s))


def _amount(cost: Cost | None) -> tuple[int | None, int]:
    """Return a cost in whole microdollars, and what is beyond; None: not known."""
    return (None, 0) if cost is None else divmod(cost.pico_usd, PICO_PER_MICRO)
