"""What the parts of one link share: its protocol, its tables, and its one end."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio

from atomr import telemetry
from atomr.errors import LinkDownError
from atomr.http2 import frames
from atomr.http2.calls import Calls
from atomr.http2.events import Lane, Reason
from atomr.http2.problems import LaneFullError
from atomr.waking import Parked, Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from atomr.crdt.origin import Origin
    from atomr.http2.frames import Frame
    from atomr.http2.heartbeat import Heartbeat
    from atomr.http2.protocol import LinkProtocol
    from atomr.http2.services import IncomingCall, Service
    from atomr.http2.tls import TlsPipe

log = logging.getLogger("atomr.http2")

FLUSH_BYTES = 65_536
"""One write; what is urgent overtakes bulk behind it."""

EARLY_BYTES = 4_096
"""Some twenty small calls; see :meth:`Core.written`."""

MAX_UNTAKEN = 32
"""Services that are not here, of which a line in the log says so, for each link."""


class Core:
    """The state of one link.

    Attributes:
        peer: the other node, in its present life.
        pipe: moves the bytes.
        protocol: knows what they mean.
        services: what we do for the peer.
        heartbeat: whether it is there.
        calls: ours that wait.
        incoming: the peer's that we have not answered.
        dropped: messages of the peer that nobody takes.
        unsent: what the socket did not take; goes before all else.
        probed: numbers of probes that wait for an answer.
        drained: woken behind each write.
        ended: woken at the end.
    """

    def __init__(
        self,
        pipe: TlsPipe,
        protocol: LinkProtocol,
        *,
        peer: Origin,
        services: Mapping[str, Service[Any]],
        heartbeat: Heartbeat,
    ) -> None:
        self.peer = peer
        self.pipe = pipe
        self.protocol = protocol
        self.services = services
        self.heartbeat = heartbeat
        self.calls = Calls()
        self.incoming: dict[int, IncomingCall] = {}
        self.dropped = 0
        self._untaken: set[str] = set()
        self.unsent = b""
        self.probed: list[int] = []
        self.drained = Parked()
        self.ended = Parked()
        self.wakeup = Wakeup()
        self.keeper = trio.CancelScope()
        self.nursery: trio.Nursery | None = None
        self._on_end: list[Callable[[], None]] = []
        self._end: tuple[Reason, str] | None = None

    @property
    def is_down(self) -> bool:
        """True when the link has ended."""
        return self._end is not None

    def down(self) -> LinkDownError:
        """Return why it ended; a new error for each who raises it."""
        reason, detail = self._end or (Reason.CLOSED, "it has not begun")
        return LinkDownError(self.peer, reason, detail)

    def check(self) -> None:
        """Refuse to go on with a link that has ended.

        Raises:
            LinkDownError: it has.
        """
        if self._end is not None:
            raise self.down()

    def drop(self, service: str) -> None:
        """Count what the peer has sent to a service that is not here, and say so once.

        Whoever waits for its effect, as an answer, waits for nothing: the peer cannot
        know why.
        """
        self.dropped += 1
        if telemetry.handlers:
            telemetry.emit(
                ("atomr", "link", "drop"),
                metadata={"peer": self.peer, "service": service},
            )
        # The peer makes the names up, if it is a bad one.
        if service not in self._untaken and len(self._untaken) < MAX_UNTAKEN:
            self._untaken.add(service)
            log.warning(
                "%s sends to the service %r, which this node does not have: it is"
                " dropped; start all nodes with the same services, as those given to"
                " open_cluster()",
                self.peer,
                service,
            )

    def put(self, lane: Lane, frame: Frame) -> int:
        """Queue what must not be refused, and have it sent; see :meth:`queue`.

        Returns:
            The bytes that were queued; 0 where the link is down.
        """
        count = self.queue(lane, frame)
        if count:
            self.written(lane)
        return count

    def queue(self, lane: Lane, frame: Frame) -> int:
        """Queue what must not be refused; a peer that never reads is cut off.

        Returns:
            The bytes that were queued; 0 where the link is down.
        """
        if self._end is not None:
            return 0
        try:
            count = self.protocol.outlets.put(lane, frame)
        except LaneFullError as error:
            self.end(
                Reason.OVERFLOW,
                f"{error.queued_bytes} bytes of answers wait, and it reads nothing",
            )
            return 0
        return count

    def written(self, lane: Lane) -> None:
        """Have what was queued sent: by the writer, or at once when it is enough.

        What many tasks send in one turn of the loop goes out together.  Beyond
        ``EARLY_BYTES`` the peer had better begin: its core and ours then work at the
        same time.
        """
        buffer = self.protocol.outlets.lanes[lane].buffer
        if EARLY_BYTES <= len(buffer) < FLUSH_BYTES and not self.unsent:
            self.flush()
        self.wakeup.set()

    def flush(self) -> bool:
        """Send what the socket takes at once; return whether that was all."""
        data = self.unsent or self.protocol.data_to_send(FLUSH_BYTES)
        if not data:
            return True
        self.unsent = data
        with suppress(OSError):
            # The writer meets it again, and ends the link.
            self.unsent = data[self.pipe.send_nowait(data) :]
        return not self.unsent

    def send_now(self) -> None:
        """Send what was queued, unless a write is under way, which goes on with it.

        It costs no turn of the writer's, where that has nothing else to do.
        """
        if not self.unsent:
            self.flush()
        if self.unsent or self.protocol.waits:
            self.wakeup.set()

    def keep_by(self, due_at: float) -> None:
        """Have the keeper look at the deadlines at that time, or before."""
        if due_at < self.keeper.deadline:
            self.keeper.deadline = due_at

    def keep_now(self) -> None:
        """Have the keeper look as soon as it runs."""
        self.keeper.deadline = -math.inf

    def spawn(self, fn: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run something for the peer; it ends with the link."""
        if self.nursery is not None:
            self.nursery.start_soon(fn, *args)

    def at_end(self, tell: Callable[[], None]) -> None:
        """Have a function called when the link ends."""
        self._on_end.append(tell)

    def end(self, reason: Reason, detail: str, *, fault: bool = False) -> None:
        """End the link, the first time this is called.

        Args:
            reason: in a word; the peer is told.
            detail: for people.
            fault: it is the peer's fault.
        """
        if self._end is not None:
            return
        self._end = (reason, detail)
        self._say(reason, fault=fault)
        self.pipe.close()
        self.calls.fail_all(self.down)
        for call in tuple(self.incoming.values()):
            call.cancel()
        self.incoming.clear()
        for tell in self._on_end:
            tell()
        self.drained.wake()
        self.ended.wake()
        if self.nursery is not None:
            self.nursery.cancel_scope.cancel()

    def _say(self, reason: Reason, *, fault: bool) -> None:
        """Tell the peer, as far as the socket takes it at once."""
        if self.unsent or self.protocol.left:
            # A record that was begun must be finished first: too late.
            return
        with suppress(OSError, LaneFullError):
            # It does not listen; the end comes without a word.
            if reason in (Reason.CLOSED, Reason.REPLACED):
                self.protocol.outlets.put(Lane.CTL, frames.Goodbye(reason))
            data = self.protocol.data_to_send(FLUSH_BYTES)
            self.protocol.leave(said=reason, fault=fault)
            self.pipe.send_nowait(data + self.protocol.data_to_send(0))
