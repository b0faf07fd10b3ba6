"""Processes of other nodes: their pids, their names, and nodes that come and go.

What is promised, and what is not, is in ``docs/reference/remote-processes.md``.
"""

from atomr.cluster.remote.messages import Messages
from atomr.cluster.remote.names import (
    at,
    demonitor_node,
    everywhere,
    monitor_node,
    spawn_on,
)
from atomr.cluster.remote.node_monitors import NodeDown, NodeEvent, NodeUp
from atomr.cluster.remote.service import RemoteProcesses

__all__ = [
    "Messages",
    "NodeDown",
    "NodeEvent",
    "NodeUp",
    "RemoteProcesses",
    "at",
    "demonitor_node",
    "everywhere",
    "monitor_node",
    "spawn_on",
]
