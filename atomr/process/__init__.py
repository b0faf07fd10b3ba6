"""Processes as trio tasks: mailbox, links, monitors, exit signals, timers, names.

Everything happens on a node::

    async with open_node() as node:
        pid = spawn(worker, 3)
        send(pid, "hello")

See ``atomr.otp`` for servers and supervisors.
"""

from atomr.process.attached import attached
from atomr.process.behaviour import Startable
from atomr.process.calls import Cast, From, Request, call, cast, reply
from atomr.process.context import current_node
from atomr.process.names import register, unregister, wait_registered, whereis
from atomr.process.node import Node, open_node
from atomr.process.plain import PlainProcess, receive, spawn
from atomr.process.signals import (
    TimerRef,
    cancel_timer,
    demonitor,
    exit_process,
    is_alive,
    kill,
    link,
    monitor,
    read_timer,
    self_pid,
    send,
    send_after,
    send_from_thread,
    send_interval,
    send_wait,
    stop,
    trap_exit,
    unlink,
    wait_exit,
)
from atomr.process.watchdog import watch_event_loop

__all__ = [
    "Cast",
    "From",
    "Node",
    "PlainProcess",
    "Request",
    "Startable",
    "TimerRef",
    "attached",
    "call",
    "cancel_timer",
    "cast",
    "current_node",
    "demonitor",
    "exit_process",
    "is_alive",
    "kill",
    "link",
    "monitor",
    "open_node",
    "read_timer",
    "receive",
    "register",
    "reply",
    "self_pid",
    "send",
    "send_after",
    "send_from_thread",
    "send_interval",
    "send_wait",
    "spawn",
    "stop",
    "trap_exit",
    "unlink",
    "unregister",
    "wait_exit",
    "wait_registered",
    "watch_event_loop",
    "whereis",
]
