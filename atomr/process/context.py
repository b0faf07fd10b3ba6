"""Which node and which process the running code belongs to.

Context variables, because helper tasks inherit them: a task that a process
starts in a nursery of its own still is that process, and still on its node.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

import trio

from atomr.errors import NoNodeError, NotAProcessError
from atomr.refs import Address, Pid

if TYPE_CHECKING:
    from atomr.process.node import Node
    from atomr.process.process import Process

CURRENT: ContextVar[Process | None] = ContextVar("atomr_process", default=None)
NODE: ContextVar[Node | None] = ContextVar("atomr_node", default=None)


def current_node() -> Node:
    """Return the node around the running task.

    Raises:
        NoNodeError: the task was not started inside ``open_node()``.
    """
    node = NODE.get()
    if node is None:
        raise NoNodeError(_no_node())
    return node


def require_trio(operation: str) -> None:
    """Refuse to run under another event loop, or under none.

    Raises:
        NoNodeError: this is no trio task.
    """
    if not _in_trio():
        raise NoNodeError(
            f"{operation} needs trio: run the function around it by trio.run();"
            " from asyncio code, in a thread"
        )


def _in_trio() -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


def _no_node() -> str:
    if not _in_trio():
        return (
            "current_node(): this is no trio task; a thread talks to processes by"
            " atomr.interop.from_thread, or by Node.send_from_thread"
        )
    return "current_node(): this task runs outside open_node()"


def current_process(operation: str) -> Process:
    """Return the process that the running code belongs to.

    Raises:
        NotAProcessError: it belongs to none; ``operation`` is in the message.
    """
    process = CURRENT.get()
    if process is None:
        raise NotAProcessError(f"{operation}: the running task is no process")
    return process


def living_process(operation: str) -> Process:
    """Return the process that the running code belongs to, if it has not ended.

    A helper task may outlive it: what the dead holds nobody would ever free.

    Raises:
        NotAProcessError: it belongs to none, or that one has ended.
    """
    process = current_process(operation)
    if process.reason is not None:
        raise NotAProcessError(f"{operation}: {process.pid!r} has ended")
    return process


def process_of_task(task: trio.lowlevel.Task) -> Process | None:
    """Return the process whose own task this is; a helper task has none."""
    process = CURRENT.get()
    return process if process is not None and process.task is task else None


def find_process(to: Address) -> Process | None:
    """Return the live process of a pid, or of a name on the current node.

    Raises:
        NoNodeError: ``to`` is a name, and there is no node to look it up on.
    """
    if isinstance(to, Pid):
        found: Process | None = to._process  # noqa: SLF001 - one thing, see refs
        return found
    # Before the Via: whether something is an instance of an ABC is dear to ask.
    if isinstance(to, str):
        return current_node().names.get(to)
    pid = to.whereis()
    return None if pid is None else find_process(pid)


def check_local(process: Process, node: Node, operation: str) -> None:
    """Refuse a process of another node: its number is somebody else's on this one.

    Args:
        process: alive.
        node: whose it must be.
        operation: what it was given to, for the error.

    Raises:
        ValueError: it is of another node, of this program or elsewhere.
    """
    pid = process.pid
    if node.processes.get(pid.number) is process:
        return
    problem = f"{operation}: {pid!r} is of another node"
    if process.node is not node:
        # Short: a StartError quotes little of its cause.
        problem += (
            f", {process.node.name!r}; start it on {node.name!r}, the node around"
            " open_cluster()"
        )
    raise ValueError(problem)


def ancestors_of(process: Process) -> tuple[Pid, ...]:
    """Return its supervisor, that one's supervisor, and so on, as far as they live."""
    found = []
    pid = process.parent.own_pid()
    while pid is not None:
        found.append(pid)
        above: Process | None = pid._process  # noqa: SLF001 - one thing, see refs
        pid = above.parent.own_pid() if above is not None else None
    return tuple(found)
