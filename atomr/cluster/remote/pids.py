"""Pids of other nodes, and one life of one of those nodes.

There is one pid for a process of another node, for as long as somebody holds it, so
that it is equal to itself alone, as pids are.  Its process is a *proxy*
(:class:`~atomr.cluster.remote.proxy.RemoteProcess`), made when it is first used, and
made anew when the one before has ended with its link.

Both tables are weak.  A pid holds its proxy; a proxy that somebody waits for is held
by whoever waits, and makes its pid again when it needs one.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from atomr import telemetry
from atomr.cluster.remote.proxy import RemoteProcess
from atomr.process.report import log
from atomr.refs import Pid

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from atomr.cluster.remote.frames import Target
    from atomr.cluster.remote.session import Session
    from atomr.crdt.origin import Origin
    from atomr.process.node import Node


class RemotePid(Pid):
    """The address of a process of another node, or of whoever has a name there.

    Attributes:
        life: of its node.
        target: its number over there, or the name.
        ended: its end was told; a name's never is.
    """

    __slots__ = ("_proxy", "ended", "life", "target")

    def __init__(self, life: Life, target: Target, label: str) -> None:
        # Not the base's, which sets what is looked up here.
        self.life = life
        self.target = target
        self.number = target if isinstance(target, int) else 0
        self.label = label
        self.ended = False
        self._proxy: RemoteProcess | None = None

    @property
    def _process(self) -> RemoteProcess | None:
        # Flat, as it is looked up for each message.
        proxy = self._proxy
        if proxy is not None and proxy.reaches:
            return proxy
        if self.ended or self.life.over:
            self._proxy = None
            return None
        proxy = self.life.proxy(self.target)
        if proxy.reaches:
            self._proxy = proxy
        return proxy

    def __repr__(self) -> str:
        return f"<Pid {self.target} {self.label}@{self.life.origin.name}>"


class Life:
    """One life of another node, as its processes are seen from here.

    Attributes:
        origin: the node, in that life.
        node: ours.
        over: a later life of it is known: its processes are gone for good.
        session: what goes on over the link with it; None: there is none.
        find_session: looks whether there is a link.
        dropped: counts messages that were not sent, by why.
        refused: counts messages that were not delivered, by why.
    """

    __slots__ = (
        "__weakref__",
        "_pids",
        "_proxies",
        "dropped",
        "find_session",
        "node",
        "origin",
        "over",
        "refused",
        "session",
    )

    def __init__(
        self,
        origin: Origin,
        node: Node,
        *,
        over: bool,
        find_session: Callable[[Life], Session | None],
        dropped: Counter[str],
        refused: Counter[str],
    ) -> None:
        self.origin = origin
        self.node = node
        self.over = over
        self.find_session = find_session
        self.dropped = dropped
        self.refused = refused
        self.session: Session | None = None
        self._pids: WeakValueDictionary[Target, RemotePid] = WeakValueDictionary()
        self._proxies: WeakValueDictionary[Target, RemoteProcess] = (
            WeakValueDictionary()
        )

    def pid(self, target: Target, label: str = "") -> RemotePid:
        """Return the pid of a process, or of a name."""
        pid = self._pids.get(target)
        if pid is None:
            if not label and isinstance(target, str):
                label = target
            pid = self._pids[target] = RemotePid(self, target, label)
        return pid

    def proxy(self, target: Target) -> RemoteProcess:
        """Return what stands for a process now, made if need be."""
        if get_ident() != self.node.thread:
            # Whoever sends from a thread needs to know the node, and no more.
            return RemoteProcess(self, target, None)
        proxy = self._proxies.get(target)
        if proxy is None or not proxy.reaches:
            proxy = RemoteProcess(self, target, self.find_session(self))
            self._proxies[target] = proxy
        return proxy

    @property
    def size(self) -> int:
        """Processes that something stands for now."""
        return len(self._proxies)

    def known(self, target: Target) -> RemoteProcess | None:
        """Return what stands for a process if it was made already."""
        proxy = self._proxies.get(target)
        return proxy if proxy is not None and proxy.reaches else None

    def proxies(self, session: Session) -> tuple[RemoteProcess, ...]:
        """Return those that live by a session."""
        return tuple(p for p in self._proxies.values() if p.session is session)

    def drop(self, target: Target, why: str) -> None:
        """Tell that a message of ours was not sent."""
        self.dropped[why] += 1
        if telemetry.handlers:
            telemetry.emit(
                ("atomr", "remote", "drop"),
                metadata={"peer": self.origin, "to": target, "reason": why},
            )
        if why == "busy" and _worth_a_line(self.dropped[why]):
            text = "%s message(s) were dropped as too much waits, the last for %r at %s"
            log.warning(text, self.dropped[why], target, self.origin)

    def refuse(self, target: Target, why: str, detail: str = "") -> None:
        """Tell that a message of the peer's was not delivered."""
        self.refused[why] += 1
        if telemetry.handlers:
            telemetry.emit(
                ("atomr", "remote", "refuse"),
                metadata={"peer": self.origin, "to": target, "reason": why},
            )
        if _worth_a_line(self.refused[why]):
            text = "%s message(s) were refused as %s, the last of %s for %r: %s"
            log.warning(text, self.refused[why], why, self.origin, target, detail)


def _worth_a_line(count: int) -> bool:
    """Return whether it is the first, or has doubled: a flood must not fill the log."""
    return count & (count - 1) == 0
