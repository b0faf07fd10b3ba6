"""Groups of processes, whose members may be on any node.

::

    groups = ProcessGroups(replicator, remote)
    ...
    groups.join("workers")                        # in a process
    for pid in groups.members("workers"):         # on any node
        cast(pid, Work())

Each node has put how often each of its processes joined each group, and nobody
changes what another one has put.  So there are no conflicts; what a node that is down
or suspected has put is left out, and there again when the node is.

A process may join a group several times, and then has to leave it as often.  Its end
takes it out of all groups: on its own node before anybody hears of its end, on others
some milliseconds later.

Source: OTP ``pg``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import attrs

from atomr.cluster.groups.roll import MAX_TIMES, Moved, Roll
from atomr.cluster.rows import RowsServer
from atomr.core.checks import check_text
from atomr.crdt.wire import check_key
from atomr.errors import NotAProcessError
from atomr.otp import child
from atomr.process.context import find_process, living_process
from atomr.refs import Pid, Ref

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from atomr.cluster.peers import Peers
    from atomr.cluster.registry import RemotePids
    from atomr.cluster.replicator import Replicator
    from atomr.core.child_spec import ChildSpec
    from atomr.crdt import Key, Origin
    from atomr.http2 import Service
    from atomr.process.process import Process


@attrs.frozen
class Joined:
    """Processes have joined a group, or their node came into sight.

    Attributes:
        ref: what ``monitor`` returned.
        group: which.
        pids: as often as they joined.
    """

    ref: Ref
    group: str
    pids: tuple[Pid, ...]


@attrs.frozen
class Left:
    """Processes have left a group, ended, or their node went out of sight.

    Attributes:
        ref: what ``monitor`` returned.
        group: which.
        pids: as often as they left.
    """

    ref: Ref
    group: str
    pids: tuple[Pid, ...]


Seats: TypeAlias = dict[str, int]
"""How often a process is in each group."""


class ProcessGroups:
    """The groups of the cluster, as code of one node sees them; see the module.

    It is a part of the cluster that comes after its replicator and ``pids``.

    Args:
        replicator: what holds the members.
        pids: makes pids of other nodes' processes: the node's ``RemoteProcesses``.
        name: nodes share groups with those of the same name.

    Attributes:
        name: the same.
        roll: who is in which group.
        local: how often each process of this node is in each group.

    Raises:
        NotReplicatingError: (join, leave) the replicator does not run.
    """

    shares_life: ClassVar[bool] = False

    def __init__(
        self, replicator: Replicator, pids: RemotePids, *, name: str = "groups"
    ) -> None:
        check_text("name", name)
        self.name = name
        self.roll = Roll()
        self.local: dict[Pid, Seats] = {}
        self.rows = replicator.open_owned(f"groups {name}")
        self._replicator = replicator
        self._pids = pids
        self._monitors: dict[Ref, tuple[str, Process]] = {}

    # --- as a part of a cluster -----------------------------------------------------

    def services(self) -> Mapping[str, Service[Any]]:
        """Return nothing: all that it tells is replicated."""
        return {}

    def child(self, peers: Peers) -> ChildSpec:
        """Return how its process is started."""
        return child(lambda: RowsServer(self, self.rows), id=f"groups {self.name}")

    # --- members --------------------------------------------------------------------

    def join(self, group: str, pid: Pid | None = None) -> None:
        """Let a process of this node be in a group, once more.

        Args:
            group: any text.
            pid: None: the running process.

        Raises:
            NotAProcessError: the process has ended, or is of another node, or the
                running task belongs to none.
            BadKeyError: the group's name is too long.
            ValueError: it is in the group 1,000 times already, or of another
                ``open_node`` of this program.
        """
        check_text("group", group)
        process = _local_process(f"join({group!r})", pid)
        check_key((group, process.pid.number))
        self._replicator.running().check_local(process, f"join({group!r})")
        if self.local.get(process.pid, {}).get(group) == MAX_TIMES:
            raise ValueError(f"join({group!r}): it is there {MAX_TIMES} times already")
        seats = self.local.setdefault(process.pid, {})
        seats[group] = seats.get(group, 0) + 1
        if process.on_end is None:
            process.on_end = {}
        process.on_end[self] = partial(self._ended, process.pid)
        self._put(group, process.pid)
        self.refresh(group, process.pid.number)

    def leave(self, group: str, pid: Pid | None = None) -> bool:
        """Undo one ``join``; return whether the process was in the group.

        Args:
            group: which.
            pid: None: the running process.
        """
        process = _local_process(f"leave({group!r})", pid)
        seats = self.local.get(process.pid, {})
        if group not in seats:
            return False
        self._replicator.running()
        seats[group] -= 1
        if not seats[group]:
            del seats[group]
        if not seats:
            del self.local[process.pid]
            if process.on_end is not None:
                process.on_end.pop(self, None)
        self._put(group, process.pid)
        self.refresh(group, process.pid.number)
        return True

    def members(self, group: str) -> tuple[Pid, ...]:
        """Return who is in a group, on all nodes in sight, as often as it joined."""
        return tuple(
            pid
            for owner, number, (label, count) in self.roll.members(group)
            for pid in (self._pid(owner, number, label),) * count
        )

    def local_members(self, group: str) -> tuple[Pid, ...]:
        """Return who of this node is in a group, as often as it joined."""
        return tuple(
            pid
            for local, seats in self.local.items()
            for pid in (local,) * seats.get(group, 0)
        )

    def groups(self) -> tuple[str, ...]:
        """Return the groups that have members."""
        return self.roll.groups()

    # --- watching -------------------------------------------------------------------

    def monitor(self, group: str) -> tuple[Ref, tuple[Pid, ...]]:
        """Let the running process get ``Joined`` and ``Left`` from now on.

        Returns:
            A reference for :meth:`demonitor`, and the members of this moment.

        Raises:
            NotAProcessError: the running task belongs to no process.
        """
        process = living_process(f"monitor({group!r})")
        ref = Ref()
        self._monitors[ref] = group, process
        if process.on_end is None:
            process.on_end = {}
        process.on_end[ref] = partial(self._monitors.pop, ref, None)
        return ref, self.members(group)

    def demonitor(self, ref: Ref) -> bool:
        """Undo it; return whether it was there."""
        found = self._monitors.pop(ref, None)
        if found is None:
            return False
        process = found[1]
        if process.on_end is not None:
            process.on_end.pop(ref, None)
        return True

    # --- for its own process --------------------------------------------------------

    def refresh(self, group: str, number: int) -> None:
        """Take what the map says of the processes of one number, and tell of it."""
        moved = self.roll.refresh(group, number, self.rows.get((group, number)))
        if moved and self._monitors:
            self._tell(group, moved)

    def look(self, key: Key) -> None:
        """Take what the map says of a row, if it is one of ours."""
        if (row := row_of(key)) is not None:
            self.refresh(*row)

    def look_at_all(self) -> None:
        """Take what the map says of all."""
        keys = [key for key, _, _ in self.rows.items()]
        for key in dict.fromkeys([*keys, *self.roll.rows()]):
            self.look(key)

    def format_status(self) -> object:
        """Return how many groups there are."""
        return {"groups": len(self.groups())}

    def check_pids(self) -> None:
        """Find out at the start, and not at the first member, whether pids can be made.

        Raises:
            NoNodeError: what makes them does not run.
        """
        self._pids.pid_of(self._replicator.running().core.node, 0, "")

    def put_again(self) -> None:
        """Put the members of this node, and remove those that are no more."""
        node = self._replicator.running().core.node
        held: dict[Key, list[Any]] = {
            (group, pid.number): [pid.label, count]
            for pid, seats in self.local.items()
            for group, count in seats.items()
        }
        for key, owner, value in list(self.rows.items()):
            if owner == node and held.get(key) != value:
                self.rows.remove(key)
        for row, value in held.items():
            if self.rows.get(row).get(node) != value:
                self.rows.put(row, value)

    def _put(self, group: str, pid: Pid) -> None:
        count = self.local.get(pid, {}).get(group, 0)
        if count:
            self.rows.put((group, pid.number), [pid.label, count])
        else:
            self.rows.remove((group, pid.number))

    def _ended(self, pid: Pid) -> None:
        seats = self.local.pop(pid, {})
        if self._replicator.server is not None:
            for group in seats:
                self._put(group, pid)
                self.refresh(group, pid.number)

    def _tell(self, group: str, moved: Iterable[Moved]) -> None:
        joined = tuple(self._moved(move for move in moved if move.by > 0))
        left = tuple(self._moved(move for move in moved if move.by < 0))
        for ref, (watched, process) in list(self._monitors.items()):
            if watched == group:
                if joined:
                    process.deliver(Joined(ref, group, joined))
                if left:
                    process.deliver(Left(ref, group, left))

    def _moved(self, moved: Iterable[Moved]) -> Iterator[Pid]:
        for move in moved:
            pid = self._pid(move.owner, move.number, move.label)
            for _ in range(abs(move.by)):
                yield pid

    def _pid(self, owner: Origin, number: int, label: str) -> Pid:
        return self._pids.pid_of(owner, number, label)


def _local_process(operation: str, pid: Pid | None) -> Process:
    if pid is None:
        return living_process(operation)
    process = find_process(pid)
    if process is None:
        raise NotAProcessError(f"{operation}: {pid!r} has ended")
    if process.node.processes.get(pid.number) is not process:
        raise NotAProcessError(f"{operation}: {pid!r} is of another node")
    return process


def row_of(key: Key) -> tuple[str, int] | None:
    """Return group and number of a key of the map; None: it is nothing of ours."""
    match key:
        case (str() as group, int() as number):
            return group, number
    return None
