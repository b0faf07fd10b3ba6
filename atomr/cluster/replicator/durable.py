"""What keeps a replicator's shards in their file, and brings them back from it.

What was applied is noted in the journal, and written a moment later, together with
what came meanwhile, by a thread.  So a write of the node's code does not wait for the
disk; who must know that it is there waits for :meth:`Durability.flush`.

A restarted node reads its file into logs of a new life.  What it had told peers and
not yet written comes back from them: it is theirs as much as anybody's.

A shard is written anew, as a snapshot, when it was joined with one, when a part of its
past was retired, and when its events are more than its keys.
"""

from __future__ import annotations

import logging
import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import attrs
import trio

from atomr import telemetry
from atomr.cluster.replicator.errors import ShardStoreError
from atomr.cluster.replicator.journal import Journal
from atomr.cluster.replicator.store import ShardStore, Stored
from atomr.core.checks import check_member, check_seconds
from atomr.crdt import Assembly, MalformedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.cluster.replicator.core import Core
    from atomr.cluster.replicator.shard import Shard
    from atomr.crdt import Event

T = TypeVar("T")

log = logging.getLogger("atomr.cluster.replicator")

_END_S = 5.0

LEAST_EVENTS = 5_000
"""A shard is not written anew for fewer."""


class OnFailure(Enum):
    """What becomes of a replicator whose file cannot be used."""

    STOP = "stop"
    """its process ends with the error, and its supervisor decides"""
    GO_ON = "go_on"
    """it goes on in memory until its next start, which is logged as an error"""


@attrs.frozen
class StoreOptions:
    """Where shards are stored.

    Attributes:
        path: of the file, in a folder that is there; of this replicator alone.
        on_failure: what happens when it cannot be read or written.
        batch_s: what is written within it is synced together.

    Raises:
        TypeError: one is of another type.
        ValueError: the time is negative.
    """

    path: Path = attrs.field(converter=Path)
    on_failure: OnFailure = OnFailure.STOP
    batch_s: float = 0.005

    def __attrs_post_init__(self) -> None:
        check_member("on_failure", self.on_failure, OnFailure)
        check_seconds("batch_s", self.batch_s)


class Durability:
    """The file of a running replicator.

    Attributes:
        is_on: whether it is written; it is not after a failure.
    """

    def __init__(self, options: StoreOptions, core: Core, *, name: str) -> None:
        self.is_on = False
        self._options = options
        self._core = core
        self._name = name
        self._journal = Journal()
        self._store: ShardStore | None = None
        self._lock = trio.Lock()
        # Its own: a resolver that hangs takes all threads that others share.
        self._thread = trio.CapacityLimiter(1)
        self._noted = trio.Event()
        self._failure: ShardStoreError | None = None
        self._behind = [0] * len(core.shards)

    async def open(self, *, forget_s: float) -> None:
        """Read the file into the core's shards, which must be empty.

        Args:
            forget_s: a node that was away for longer may know what others have
                forgotten.

        Raises:
            ShardStoreError: it cannot be used, and the options say ``STOP``.

        Cancellation: closes it.
        """
        try:
            await self._read(forget_s)
        except ShardStoreError as error:
            # What was read of it is as good as what a peer says.
            await self._failed(error)
            return
        except BaseException:
            # Or it stays locked for the next start.
            with trio.CancelScope(shield=True):
                await self.close()
            raise
        self.is_on = True
        self._core.journal = self._journal
        self._journal.on_note = self._note

    async def _read(self, forget_s: float) -> None:
        path, shards = self._options.path, self._core.shards
        store = await self._in_thread(lambda: ShardStore(path, len(shards)))
        self._store = store
        self._warn_of_age(store, forget_s)
        for shard in shards:
            stored = await self._in_thread(lambda shard=shard: store.read(shard.number))  # type: ignore[misc]
            await self._load(shard, stored)

    async def _load(self, shard: Shard, stored: Stored) -> None:
        log_, path = shard.log, self._options.path
        try:
            if stored.parts:
                log_.adopt(Assembly.of_chunks(stored.parts))
            for batch in stored.batches:
                took = log_.receive(batch)
                self._behind[shard.number] += len(batch)
                if took.refused or took.dropped or took.held:
                    raise ShardStoreError(path, "its events have gaps: it is damaged")
                await trio.lowlevel.checkpoint()
        except MalformedError as error:
            raise ShardStoreError(path, f"{error}: it is damaged") from error
        finally:
            # It is there already.
            shard.tail.take_news()
        await trio.lowlevel.checkpoint()

    def _warn_of_age(self, store: ShardStore, forget_s: float) -> None:
        if store.written_at_s is None:
            return
        age_s = time.time() - store.written_at_s
        if age_s > forget_s:
            log.warning(
                "replicator %r: its file %s was last written %.0f days ago; if other"
                " nodes ran meanwhile, they may have forgotten what was removed, and"
                " get it again from here: to prevent that, stop this node and move"
                " the file away",
                self._name,
                store.path,
                age_s / 86_400,
            )

    # --- writing --------------------------------------------------------------------

    def _note(self) -> None:
        self._noted.set()

    async def run(self) -> None:
        """Write what is noted, again and again, and close the file at the end.

        Raises:
            ShardStoreError: it cannot be written, and the options say ``STOP``.

        Cancellation: what is noted is written first.
        """
        try:
            while self.is_on:
                await self._noted.wait()
                await trio.sleep(self._options.batch_s)
                # Here alone: who waits for it would not see another one being set.
                self._noted = trio.Event()
                await self.flush()
            if self._failure is not None:
                # Somebody who waited in flush() was the first to know.
                raise self._failure
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _END_S):
                await self.flush()
                await self.close()

    async def flush(self) -> None:
        """Wait until all that was applied up to now is on the disk.

        Raises:
            ShardStoreError: it is not.

        Cancellation: what is being written is written.
        """
        async with self._lock:
            store = self._store
            if not self._journal or store is None or not self.is_on:
                return
            # Whoever waits here may leave: what it took would be missing for ever.
            with trio.CancelScope(shield=True):
                await self._write(store)

    async def _write(self, store: ShardStore) -> None:
        self._look_for_long_ones()
        events, anew = self._journal.take()
        parts = {}
        for number in sorted(anew):
            parts[number] = self._core.shards[number].log.snapshot()
            # What is written to it meanwhile is noted, and known when it is read.
            await trio.lowlevel.checkpoint()
        try:
            await self._in_thread(lambda: store.write(events, parts))
        except ShardStoreError as error:
            await self._failed(error)
        else:
            self._count(events, anew)

    def _look_for_long_ones(self) -> None:
        for number in list(self._journal.events):
            shard = self._core.shards[number]
            keys = sum(len(r.cells()) for r in shard.log.replicas().values())
            if self._behind[number] > max(LEAST_EVENTS, keys):
                self._journal.rewrite(number)

    def _count(self, events: dict[int, list[Event]], anew: set[int]) -> None:
        for number in anew:
            self._behind[number] = 0
        for number, some in events.items():
            self._behind[number] += len(some)

    async def _failed(self, error: ShardStoreError) -> None:
        self.is_on = False
        self._core.journal = None
        await self.close()
        telemetry.emit(
            ("atomr", "replicator", "store_failed"),
            metadata={"name": self._name, "error": error},
        )
        if self._options.on_failure is OnFailure.STOP:
            self._failure = error
            self._noted.set()
            raise error
        log.error(
            "replicator %r goes on in memory alone, until its next start: %s",
            self._name,
            error,
        )

    async def close(self) -> None:
        """Close the file."""
        store, self._store = self._store, None
        if store is not None:
            await self._in_thread(store.close)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(call, limiter=self._thread)
