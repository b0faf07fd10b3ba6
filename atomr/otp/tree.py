"""The supervision tree as plain data, for an observer.

Reads the tables directly: it waits for nobody, so it shows a supervisor that
is busy with a slow start just as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from atomr.core.child_spec import ChildKind
from atomr.otp.children import ChildState
from atomr.otp.dynamic_supervisor import DynamicSupervisor
from atomr.otp.supervising import Child, Supervising
from atomr.process.context import find_process
from atomr.process.node import Node
from atomr.refs import Address, Name, Pid

if TYPE_CHECKING:
    from atomr.process.process import Process


@attrs.frozen
class TreeNode:
    """One process, or one child that waits or has stopped, and all below it.

    Attributes:
        id: child id; the node's name at the top.
        pid: None for the node, and while it does not run.
        behaviour: class name of what runs; ``""`` when nothing does.
        kind: worker or supervisor.
        state: whether it runs.
        names: registered names.
        queue_size: messages that wait.
        restarts: how often its supervisor has restarted it.
        uptime_s: seconds since its ``init`` was done.
        children: in the order of start.
    """

    id: str
    pid: Pid | None
    behaviour: str
    kind: ChildKind
    state: ChildState
    names: tuple[Name, ...] = ()
    queue_size: int = 0
    restarts: int = 0
    uptime_s: float = 0.0
    children: tuple[TreeNode, ...] = ()

    def as_lines(self, indent: str = "") -> list[str]:
        """Return the tree as text, a line per process."""
        who = (
            f"{self.id} {self.pid!r}" if self.pid else f"{self.id} ({self.state.value})"
        )
        lines = [f"{indent}{who} {self.behaviour}".rstrip()]
        for child in self.children:
            lines += child.as_lines(indent + "  ")
        return lines


def supervision_tree(top: Address | Node) -> TreeNode | None:
    """Return the tree below a node or a process; None when it is not there.

    A node's children are its roots and its spawned processes.
    """
    if isinstance(top, Node):
        processes = (p for p in top.processes.values() if p.parent is top)
        children = tuple(_of_process(process) for process in processes)
        return TreeNode(
            id=top.name,
            pid=None,
            behaviour="Node",
            kind=ChildKind.SUPERVISOR,
            state=ChildState.RUNNING,
            names=tuple(top.names),
            children=children,
        )
    process = find_process(top)
    return None if process is None else _of_process(process, _row(process))


def _row(process: Process) -> Child | None:
    parent = process.parent
    rows = parent.rows() if isinstance(parent, Supervising) else []
    return next((row for row in rows if row.process is process), None)


def _of_process(process: Process, row: Child | None = None) -> TreeNode:
    behaviour = process.behaviour
    now = trio.current_time()
    return TreeNode(
        id=process.pid.label if row is None else row.spec.id,
        pid=process.pid,
        behaviour=behaviour.behaviour_name(),
        kind=behaviour.child_kind,
        state=ChildState.RUNNING,
        names=tuple(sorted(process.names or ())),
        queue_size=process.queue_size,
        restarts=0 if row is None else row.restarts,
        uptime_s=now - process.started_at if process.was_started else 0.0,
        children=_below(behaviour),
    )


def _below(behaviour: object) -> tuple[TreeNode, ...]:
    if not isinstance(behaviour, Supervising):
        return ()
    children = tuple(_of_child(child) for child in behaviour.rows())
    if isinstance(behaviour, DynamicSupervisor):
        attached = (_of_process(p) for p in behaviour.attached())
        return (*children, *attached)
    return children


def _of_child(child: Child) -> TreeNode:
    if child.process is not None and child.running:
        return _of_process(child.process, child)
    return TreeNode(
        id=child.spec.id,
        pid=None,
        behaviour="",
        kind=child.kind,
        state=child.state,
        restarts=child.restarts,
    )
