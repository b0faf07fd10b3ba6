"""Names on other nodes, and monitors of nodes: what a user's code calls.

::

    await call(at("ams-2", "counter"), Get())
    await multi_call(everywhere("counter"), Get())
    monitor_node("ams-2")
    await spawn_on("ams-2", "worker", 7)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import attrs

from atomr.cluster.remote.frames import MAX_NAME_CHARACTERS
from atomr.cluster.remote.reasons import encodable
from atomr.cluster.remote.service import NAME, remote_processes
from atomr.core.checks import check_text
from atomr.errors import RemoteError, SpawnRefusedError
from atomr.process.calls import DEFAULT_TIMEOUT_S, call
from atomr.process.context import living_process
from atomr.refs import Pid, Via

if TYPE_CHECKING:
    from atomr.refs import Ref


def _crosses(_: object, field: attrs.Attribute[str], value: str) -> None:
    """Refuse what the other node would take for nonsense, and end the link for."""
    check_text(f"at(): {field.name}", value)
    if not 0 < len(value) <= MAX_NAME_CHARACTERS or encodable(value) != value:
        expected = f"expected 1 to {MAX_NAME_CHARACTERS} characters of Unicode"
        raise ValueError(f"at(): {field.name}={value!r}: {expected}")


@attrs.frozen
class _At(Via):
    node: str = attrs.field(validator=_crosses)
    name: str = attrs.field(validator=_crosses)

    def __repr__(self) -> str:
        return f"{self.name}@{self.node}"

    def whereis(self) -> Pid | None:
        return remote_processes(self).name_of(self.node, self.name)

    def register(self, pid: Pid) -> NoReturn:
        raise ValueError(
            f"{self!r}: {pid!r} cannot have it, as names on a node are given there;"
            " use name= of a child specification, or register()"
        )

    def unregister(self, pid: Pid) -> None:
        """Do nothing: nobody was given it here."""


def at(node: str, name: str) -> Via:
    """Return the address of whoever has a name on a node, looked up at each use.

    For ``call``, ``cast``, ``send``, ``monitor``, ``stop`` and the like, from any node
    of the cluster; a link needs a pid.

    Args:
        node: its name.
        name: as ``register`` or a child specification gave it there.

    Raises:
        TypeError: one of them is no text.
        ValueError: one is empty, or longer than 255 characters; or, when it is used
            as a ``name``: names on a node are given there.
    """
    return _At(node, name)


def everywhere(name: str) -> tuple[Via, ...]:
    """Return the address of a name on each node that is up, this one first.

    For ``multi_call`` and ``abcast``.

    Raises:
        NoNodeError: there is no node around, or it is in no cluster.
    """
    peers = remote_processes(f"everywhere({name!r})").peers
    nodes = (peers.origin.name, *(peer.name for peer in peers.all()))
    return tuple(_At(node, name) for node in nodes)


async def spawn_on(
    node: str, name: str, *args: object, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> Pid:
    """Run a function of another node there, as a process that nobody supervises.

    Args:
        node: its name.
        name: of a function in the ``spawns`` of its ``RemoteProcesses``.
        args: its arguments; they have to cross.
        timeout_s: bound in seconds; None: no bound.

    Raises:
        SpawnRefusedError: it allows no such function, or that one does not take such
            arguments.
        CallError: there is no answer; the process may run.
        UnregisteredMessageError: an argument does not cross.

    Cancellation: the process may run.
    """
    try:
        pid = await call(at(node, NAME), ("spawn", name, args), timeout_s=timeout_s)
    except RemoteError as error:
        if error.type_name != SpawnRefusedError.__name__:
            raise
        problem = error.text.removeprefix(SpawnRefusedError.begin(node, name))
        raise SpawnRefusedError(node, name, problem) from error
    assert isinstance(pid, Pid), "as its process answers"
    return pid


def monitor_node(name: str | None = None) -> Ref:
    """Tell the running process of a node, or of all, that comes or goes.

    It gets ``NodeUp`` and ``NodeDown``: at once for each that is up, and for the one
    that was named and is not; then at each change, in order, until it ends.

    Args:
        name: of the node; None: all.

    Raises:
        NotAProcessError: the running task belongs to no live process.
        NoNodeError: its node is in no cluster.
    """
    operation = f"monitor_node({name!r})"
    process = living_process(operation)
    remote = remote_processes(operation)
    return remote.monitors.add(process, name, remote.peers.all())


def demonitor_node(ref: Ref) -> bool:
    """Undo :func:`monitor_node`; what has come already stays.

    Returns:
        Whether the monitor was still there.

    Raises:
        NoNodeError: there is no node around, or it is in no cluster.
    """
    return remote_processes(f"demonitor_node({ref!r})").monitors.drop(ref)
