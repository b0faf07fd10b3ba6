"""Replicated values, as code of a node reads, writes and watches them.

A handle holds nothing: each call goes to the replicas of the present life.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from atomr.cluster.replicator.server import wall_ms
from atomr.cluster.replicator.watchers import DEFAULT_ROOM, run_callback
from atomr.core.checks import check_count, check_text
from atomr.crdt import AWLWWMap, Key, OwnedMap, Replicated
from atomr.crdt.wire import check_key
from atomr.process import self_pid, spawn

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from atomr.cluster.replicator.changes import Told
    from atomr.cluster.replicator.replicator import Replicator
    from atomr.cluster.replicator.shard import Shard
    from atomr.crdt import Delta, Origin
    from atomr.refs import Pid

KindT = TypeVar("KindT", bound=Replicated)
R = TypeVar("R")


class Watchable(ABC):
    """What all handles can do.

    Attributes:
        kind: of the value.
        name: of the value.

    Raises:
        NotReplicatingError: (all methods) the replicator's process does not run.
    """

    __slots__ = ("_replicator", "kind", "name")

    def __init__(
        self, replicator: Replicator, kind: type[Replicated], name: str
    ) -> None:
        check_text("name", name)
        check_key(name)
        self.kind = kind
        self.name = name
        self._replicator = replicator

    def __repr__(self) -> str:
        return f"<{self.kind.KIND} {self.name!r} of {self._replicator.name!r}>"

    @abstractmethod
    def _shards(self) -> tuple[Shard, ...]:
        """Return where it is."""

    # --- watching -------------------------------------------------------------------

    def subscribe(self, *, room: int = DEFAULT_ROOM) -> None:
        """Let the running process get ``Changed`` for each change from now on.

        Changes of this node come too.  While ``room`` messages wait for the process,
        whatever they are, changes are counted instead, and ``Missed`` tells so.
        Subscribing again changes the room.

        Args:
            room: at least 1.

        Raises:
            NotAProcessError: the running task belongs to no process.
        """
        check_count("room", room, least=1)
        pid, server = self_pid(), self._replicator.running()
        server.core.watch(self.kind, self.name, self._shards())
        server.watchers.add((self.kind.KIND, self.name), pid, room)

    def unsubscribe(self) -> bool:
        """Undo it for the running process; return whether it was subscribed."""
        server = self._replicator.running()
        return server.watchers.remove((self.kind.KIND, self.name), self_pid())

    def watch(
        self,
        callback: Callable[[Told], Awaitable[object] | object],
        *,
        room: int = DEFAULT_ROOM,
    ) -> Pid:
        """Have a function called for each change, in a process of its own.

        A function that blocks holds up nobody, and one that raises ends its process.
        It begins with the process, a moment from now.

        Args:
            callback: takes ``Changed`` and ``Missed``; may be async.
            room: how many may wait for it, at least 1.

        Returns:
            The process; stop it to end the watch.
        """
        check_count("room", room, least=1)
        return spawn(run_callback, partial(self.subscribe, room=room), callback)


class _Divided(Watchable):
    """A map whose keys are divided among all shards."""

    __slots__ = ()

    def _shards(self) -> tuple[Shard, ...]:
        return self._replicator.running().core.shards


class MapHandle(_Divided):
    """A map that all nodes write; see ``atomr.crdt.AWLWWMap``."""

    __slots__ = ()

    def __init__(self, replicator: Replicator, name: str) -> None:
        super().__init__(replicator, AWLWWMap, name)

    def put(self, key: Key, value: object) -> None:
        """Set a key's value here, and soon everywhere.

        Args:
            key: text, an integer of 64 bits, or a tuple of them.
            value: whatever MessagePack can carry, in at most 128 KiB.

        Raises:
            BadKeyError: it can be no key.
            TypeError: MessagePack cannot carry the value.
            OverflowError: an integer in it has more than 64 bits.
            ValueSizeError: it is too large.
        """
        server = self._replicator.running()
        shard = server.core.shard_of(self.name, key)
        shard.open(AWLWWMap, self.name).put(key, value, now_ms=wall_ms())
        server.wrote(shard)

    def remove(self, key: Key) -> None:
        """Remove a key, as far as its values are known here."""
        server = self._replicator.running()
        shard = server.core.shard_of(self.name, key)
        if shard.open(AWLWWMap, self.name).remove(key):
            server.wrote(shard)

    def get(self, key: Key, default: object = None) -> Any:  # noqa: ANN401 - whatever was put
        """Return a key's value, or ``default`` where it is absent."""
        return self._at(key).get(key, default)

    def __getitem__(self, key: Key) -> Any:  # noqa: ANN401 - whatever was put
        return self._at(key)[key]

    def __contains__(self, key: Key) -> bool:
        return key in self._at(key)

    def __len__(self) -> int:
        return sum(map(len, self._parts()))

    def __iter__(self) -> Iterator[Key]:
        return (key for part in self._parts() for key in part)

    def items(self) -> Iterator[tuple[Key, Any]]:
        """Yield keys and values, in no particular order."""
        return (item for part in self._parts() for item in part.items())

    @property
    def value(self) -> dict[Key, Any]:
        """The map as a dictionary of its own."""
        return dict(self.items())

    def conflicts(self, key: Key) -> tuple[Any, ...]:
        """Return all values that were put at once; the next put replaces them."""
        return self._at(key).conflicts(key)

    def _at(self, key: Key) -> AWLWWMap:
        core = self._replicator.running().core
        return core.shard_of(self.name, key).open(AWLWWMap, self.name)

    def _parts(self) -> list[AWLWWMap]:
        return [shard.open(AWLWWMap, self.name) for shard in self._shards()]


class OwnedHandle(_Divided):
    """A map in which each node has its own values; see ``atomr.crdt.OwnedMap``.

    Owners are nodes.  Those that are down, or suspected, are left out: what they own
    is there again as soon as they are, and gone for good once they are given up.
    """

    __slots__ = ()

    def __init__(self, replicator: Replicator, name: str) -> None:
        super().__init__(replicator, OwnedMap, name)

    def put(self, key: Key, value: object) -> None:
        """Set this node's value of a key; raises as :meth:`MapHandle.put`."""
        server = self._replicator.running()
        shard = server.core.shard_of(self.name, key)
        shard.open(OwnedMap, self.name).put(key, value)
        server.wrote(shard)

    def remove(self, key: Key) -> None:
        """Remove this node's value of a key; others' stay."""
        server = self._replicator.running()
        shard = server.core.shard_of(self.name, key)
        if shard.open(OwnedMap, self.name).remove(key):
            server.wrote(shard)

    def get(self, key: Key) -> dict[Origin, Any]:
        """Return the values of a key by owner; those of nodes that are in sight."""
        core = self._replicator.running().core
        shard = core.shard_of(self.name, key)
        part = shard.open(OwnedMap, self.name)
        found: dict[Origin, Any] = {}
        for owner in part.owners(key):
            node = core.node_of(shard, owner)
            if node is not None:
                found[node] = part.get(key, owner)
        return found

    def owners(self, key: Key) -> tuple[Origin, ...]:
        """Return the nodes in sight that have a value of a key."""
        return tuple(self.get(key))

    def items(self) -> Iterator[tuple[Key, Origin, Any]]:
        """Yield each key, owner and value, of nodes that are in sight."""
        core = self._replicator.running().core
        for shard in core.shards:
            for key, owner, value in shard.open(OwnedMap, self.name).items():
                node = core.node_of(shard, owner)
                if node is not None:
                    yield key, node, value

    @property
    def value(self) -> dict[Key, dict[Origin, Any]]:
        """Each key with the values of its owners that are in sight."""
        value: dict[Key, dict[Origin, Any]] = {}
        for key, owner, owned in self.items():
            value.setdefault(key, {})[owner] = owned
        return value


class ValueHandle(Watchable, Generic[KindT]):
    """A value of any type, whole in one shard."""

    __slots__ = ("_kind",)

    def __init__(self, replicator: Replicator, kind: type[KindT], name: str) -> None:
        super().__init__(replicator, kind, name)
        self._kind = kind

    def read(self) -> KindT:
        """Return the replica, to read now and not to keep; do not write to it.

        It is another one after the replicator began anew.
        """
        return self._shard().open(self._kind, self.name)

    def write(self, change: Callable[[KindT], Delta]) -> Delta:
        """Change the value here, and soon everywhere.

        Args:
            change: calls one of the replica's methods that write, and returns what
                that returns; must not wait.

        Raises:
            Exception: whatever ``change`` raises.
        """
        server, shard = self._replicator.running(), self._shard()
        try:
            return change(shard.open(self._kind, self.name))
        finally:
            server.wrote(shard)

    def _shard(self) -> Shard:
        core = self._replicator.running().core
        return core.shard_of(f"{self.kind.KIND}/{self.name}")

    def _shards(self) -> tuple[Shard, ...]:
        return (self._shard(),)
