"""Registry: names for processes, of any hashable kind, with values.

::

    rooms: RegistryRef[str, int] = RegistryRef("rooms")
    await node.start(child(Registry, name="rooms"))
    await start_child(top, child(Room, name=rooms.via("lobby")))
    await call(rooms.via("lobby"), Join("ann"))

A process that owns the table, and a :class:`RegistryRef` that reads and writes
it in place: all of a node runs in one thread, so no message is needed, and a
lookup is a dict lookup.

An entry goes with its process, before anybody hears of its end: a lookup never
returns the dead.  A process that registers is linked with the registry, as in
Elixir: when the registry crashes, those that others can no longer find end too,
and their supervisors start them anew.

When to use: names made at run time (a room, a user), several processes under
one key, something to know about each.  When not: for a fixed name, the node's
own ``name=`` of a child specification is enough.

Source: Elixir ``Registry``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import attrs

from atomr.core.checks import check_member
from atomr.core.registry_table import RegistryTable
from atomr.errors import NameTakenError, NoRegistryError, NotAProcessError
from atomr.otp.gen_server import GenServer
from atomr.otp.results import NoReply
from atomr.process.context import current_process, find_process, living_process
from atomr.process.signals import trap_exit
from atomr.refs import Name, Pid, Via

if TYPE_CHECKING:
    from atomr.process.process import Process

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Entries: TypeAlias = tuple[tuple[Pid, V], ...]


class Keys(Enum):
    """How many processes may hold one key."""

    UNIQUE = "unique"
    DUPLICATE = "duplicate"


class Registry(GenServer):
    """The process; start it under a name, and talk to it by a :class:`RegistryRef`.

    Args:
        keys: how many processes may hold one key.

    Raises:
        TypeError: ``keys`` is no member of :class:`Keys`.
    """

    def __init__(self, keys: Keys = Keys.UNIQUE) -> None:
        check_member("keys", keys, Keys)
        self.unique = keys is Keys.UNIQUE
        self.table: RegistryTable[Hashable, object, Pid] = RegistryTable()
        self.meta: dict[str, object] = {}

    def init(self) -> None:
        """Outlive the processes that it is linked with."""
        trap_exit(True)  # noqa: FBT003 - process_flag(trap_exit, true)

    def handle_info(self, message: object) -> NoReply:
        """Drop the exits of registered processes: their entries are gone already."""
        return NoReply()

    def format_status(self) -> object:
        """Return how many entries there are; values may be anybody's secrets."""
        return {"unique": self.unique, "entries": len(self.table)}


class RegistryRef(Generic[K, V]):
    """A registry's name, and what its keys and values are, for type checkers.

    Args:
        name: of the registry's process.

    Raises:
        NoRegistryError: (all methods) no registry runs under that name.
    """

    __slots__ = ("name",)

    def __init__(self, name: Name) -> None:
        self.name = name

    def _registry(self) -> tuple[Process, Registry]:
        process = find_process(self.name)
        if process is None or not isinstance(process.behaviour, Registry):
            raise NoRegistryError(self.name)
        return process, process.behaviour

    def _table(self) -> RegistryTable[Hashable, object, Pid]:
        return self._registry()[1].table

    # --- of the running process -----------------------------------------------------

    def register(self, key: K, value: V) -> None:
        """Let the running process hold a key.

        With duplicate keys it may hold one several times.

        Raises:
            NameTakenError: keys are unique, and a live process (maybe this
                one) holds it.
            NotAProcessError: the running task belongs to no process.
        """
        self._hold(key, value, living_process(f"register({key!r})"))

    def unregister(self, key: K) -> bool:
        """Let go of a key; return whether the running process held it.

        With its last key goes the link with the registry, as in Elixir.
        """
        return self._let_go(key, current_process(f"unregister({key!r})"))

    def update_value(self, key: K, update: Callable[[V], V]) -> V:
        """Replace the running process' value of a unique key, and return it.

        Raises:
            KeyError: the running process does not hold the key.
            ValueError: keys are not unique.
        """
        registry = self._registry()[1]
        if not registry.unique:
            raise ValueError(f"update_value({key!r}): keys of {self.name!r} repeat")
        pid = current_process(f"update_value({key!r})").pid
        if not registry.table.holds(key, pid):
            raise KeyError(key)
        ((_, old),) = registry.table.lookup(key)
        new = update(old)  # type: ignore[arg-type]
        registry.table.set_values(key, pid, [new])
        return new

    # --- of all -----------------------------------------------------------------------

    def lookup(self, key: K) -> Entries[V]:
        """Return pid and value of each process that holds the key."""
        return self._table().lookup(key)  # type: ignore[return-value]

    def whereis(self, key: K) -> Pid | None:
        """Return who holds the key; with duplicate keys, who has held it longest."""
        return self._table().holder(key)

    def keys(self, pid: Pid) -> tuple[K, ...]:
        """Return the keys that a process holds."""
        return self._table().keys(pid)  # type: ignore[return-value]

    def values(self, key: K, pid: Pid) -> tuple[V, ...]:
        """Return the values of a process' entries of a key."""
        return tuple(value for owner, value in self.lookup(key) if owner is pid)

    def select(
        self, match: Callable[[K, Pid, V], bool]
    ) -> tuple[tuple[K, Pid, V], ...]:
        """Return the entries that ``match`` accepts; looks at all of them."""
        entries = self._table().entries()
        return tuple(e for e in entries if match(*e))  # type: ignore[misc, arg-type]

    def count(self) -> int:
        """Return how many entries there are."""
        return len(self._table())

    def dispatch(self, key: K, deliver: Callable[[Entries[V]], None]) -> None:
        """Call ``deliver`` with the entries of a key; not when there are none."""
        entries = self.lookup(key)
        if entries:
            deliver(entries)

    def put_meta(self, key: str, value: object) -> None:
        """Keep something with the registry itself."""
        self._registry()[1].meta[key] = value

    def get_meta(self, key: str, default: object = None) -> object:
        """Return what :meth:`put_meta` kept."""
        return self._registry()[1].meta.get(key, default)

    def delete_meta(self, key: str) -> None:
        """Forget what :meth:`put_meta` kept; nothing when there is nothing."""
        self._registry()[1].meta.pop(key, None)

    def via(self, key: K, value: object = None) -> Via:
        """Return an address: whoever holds ``key``, looked up at each use.

        In a child specification's ``name``, the process is registered, with
        ``value``, before its ``init`` runs.
        """
        return _RegistryVia(self, key, value)

    def _hold(self, key: K, value: object, process: Process) -> None:
        owner, registry = self._registry()
        pid, table = process.pid, registry.table
        holder = table.holder(key) if registry.unique else None
        if holder is not None:
            raise NameTakenError(f"{self.name}[{key!r}]", holder)
        if process.on_end is None:
            process.on_end = {}
        if table not in process.on_end:
            process.on_end[table] = lambda: table.drop_owner(pid)
            for one, other in ((process, owner), (owner, process)):
                if one.links is None:
                    one.links = {}
                one.links[other] = None
        table.add(key, pid, value)

    def _let_go(self, key: K, process: Process) -> bool:
        owner, registry = self._registry()
        table = registry.table
        held = table.drop(key, process.pid) > 0
        if held and not table.owns_any(process.pid):
            if process.on_end is not None:
                process.on_end.pop(table, None)
            for one, other in ((process, owner), (owner, process)):
                if one.links is not None:
                    one.links.pop(other, None)
        return held


@attrs.frozen
class _RegistryVia(Via, Generic[K, V]):
    registry: RegistryRef[K, V]
    key: K
    value: object

    def __repr__(self) -> str:
        return f"{self.registry.name}[{self.key!r}]"

    def whereis(self) -> Pid | None:
        try:
            return self.registry.whereis(self.key)
        except NoRegistryError:
            # Without a registry nobody has the name: a cast must not fail.
            return None

    def register(self, pid: Pid) -> None:
        process = find_process(pid)
        if process is None:
            raise NotAProcessError(f"register({self!r}): {pid!r} has ended")
        self.registry._hold(self.key, self.value, process)  # noqa: SLF001 - one module

    def unregister(self, pid: Pid) -> None:
        process = find_process(pid)
        if process is not None:
            self.registry._let_go(self.key, process)  # noqa: SLF001 - one module
