"""Names of processes on a node, and waiting for one to be taken.

A name is free again the moment that its process ends, before anybody hears of
the end, and is taken again when a supervisor has started the next: in between,
nobody is there, and a call fails at once.  :func:`wait_registered` is for who
would rather wait.

For names made at run time see ``atomr.otp.Registry``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from atomr.errors import NameTakenError, NotAProcessError, NotRegisteredError
from atomr.process.context import current_node, find_process, living_process
from atomr.process.parking import ParkSpot

if TYPE_CHECKING:
    from atomr.refs import Name, Pid

DEFAULT_WAIT_S = 5.0
"""As long as a call waits."""


def register(name: Name, pid: Pid | None = None) -> None:
    """Give a process a name on its node; it is free when the process ends.

    Args:
        name: not held by another process; a process may have several.
        pid: None: the running process.

    Raises:
        NameTakenError: another live process holds it.
        NotAProcessError: ``pid`` is dead, or None outside a process.
    """
    if pid is None:
        process = living_process(f"register({name!r})")
    else:
        found = find_process(pid)
        if found is None:
            raise NotAProcessError(f"register({name!r}): {pid!r} has ended")
        process = found
    node = process.node
    holder = node.names.get(name)
    if holder is not None and holder is not process:
        raise NameTakenError(name, holder.pid)
    node.hold_name(name, process)


def unregister(name: Name) -> bool:
    """Free a name of the current node; return whether somebody held it."""
    process = current_node().names.pop(name, None)
    if process is not None and process.names is not None:
        process.names.discard(name)
    return process is not None


def whereis(name: Name) -> Pid | None:
    """Return the pid that holds the name on the current node."""
    return current_node().whereis(name)


async def wait_registered(
    name: Name, *, timeout_s: float | None = DEFAULT_WAIT_S
) -> Pid:
    """Wait until a process of the current node holds the name; return its pid.

    For a server that its supervisor is about to start again.  The process may
    still be in its ``init``: a call then waits for it.

    Args:
        name: as given to ``register`` or to a child specification.
        timeout_s: bound in seconds; None: no bound.

    Raises:
        NotRegisteredError: nobody took it in time.
        NoNodeError: there is no node around.

    Cancellation: nothing is left behind.
    """
    node = current_node()
    found = node.names.get(name)
    if found is None:
        spot = ParkSpot()
        spots = node.name_spots.setdefault(name, [])
        spots.append(spot)
        try:
            with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
                while found is None:
                    await spot.park(trio.lowlevel.current_task())
                    found = node.names.get(name)
        finally:
            spots.remove(spot)
            if not spots:
                del node.name_spots[name]
            spot.close()
    if found is None:
        assert timeout_s is not None, "it waits for ever"
        raise NotRegisteredError(name, timeout_s)
    return found.pid
