"""What goes on between the processes of two nodes over one link.

A session is as long as its link, on both sides: all that it holds ends with the link,
and a new link begins with nothing.  So the two sides agree without a word.

What must not get lost while the link holds (signals, replies) waits here when the
lane is full; messages and calls are refused then, so that nothing overtakes.
"""

from __future__ import annotations

import itertools
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from trio.lowlevel import enable_ki_protection

from atomr.cluster.remote import frames, reasons
from atomr.cluster.remote.unlinks import Unlinks
from atomr.core.exits import NOCONNECTION
from atomr.errors import LinkBusyError, LinkDownError, LinkMessageError
from atomr.http2 import Reason
from atomr.process.report import log

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr.cluster.remote.codec import Codec
    from atomr.cluster.remote.frames import Frame
    from atomr.cluster.remote.pids import Life
    from atomr.cluster.remote.proxy import RemoteProcess
    from atomr.core.exits import ExitReason
    from atomr.http2 import Link
    from atomr.process.calls import From
    from atomr.process.process import Process

SERVICE: Final = "process"
"""The name that nodes talk to each other under about processes."""

MAX_WAITING_BYTES: Final = 8 * 1024 * 1024
"""Signals and replies that a peer does not read; one more ends the link."""

RETRY_S: Final = 0.01
"""How soon a lane that was full is looked at again."""

FRAME_BYTES: Final = 64
"""What a frame takes beside its body, about."""


class Session:
    """The state of one link.

    Attributes:
        life: the other node.
        link: the link.
        codec: for what users send.
        up: the link holds.
        calls: ours that wait for the other node, by number.
        answering: theirs that wait for us.
        watches: the proxies whose ends we wait for, by number.
        watched: our processes whose ends they wait for, by their number.
        unlinks: links that were undone here.
        late: replies that nobody waited for any more.
    """

    def __init__(self, life: Life, link: Link, *, node_name: str, codec: Codec) -> None:
        self.life = life
        self.link = link
        self.codec = codec
        self.up = True
        self.calls: dict[int, From] = {}
        self.answering: dict[int, From] = {}
        self.watches: dict[int, RemoteProcess] = {}
        self.watched: dict[int, Process] = {}
        self.unlinks = Unlinks()
        self.late = 0
        self._node_name = node_name
        self._numbers = itertools.count(1)
        self._waiting: deque[tuple[Frame, int]] = deque()
        self._waiting_bytes = 0
        self._overflown = False

    def __repr__(self) -> str:
        return f"<Session with {self.life.origin}>"

    # --- sending ----------------------------------------------------------------------

    def send(self, frame: Frame) -> None:
        """Send something that may be refused.

        Raises:
            LinkBusyError: too much waits already.
            LinkMessageError: it is too long.
            LinkDownError: the link has ended.
        """
        if self._waiting:
            raise LinkBusyError(
                self.life.origin,
                queued_bytes=self._waiting_bytes,
                limit_bytes=MAX_WAITING_BYTES,
            )
        self.link.tell(SERVICE, frame)

    def signal(self, frame: Frame, *, size_bytes: int = 0) -> None:
        """Send what must not get lost; it waits for room where there is none.

        Args:
            frame: what.
            size_bytes: how long its body is.

        Raises:
            LinkMessageError: it is too long, and there was room.
        """
        if not self.up:
            return
        try:
            self.send(frame)
        except LinkBusyError:
            self._queue(frame, size_bytes)
        except LinkDownError:
            # Whoever it concerns is told of that.
            return

    def _queue(self, frame: Frame, size_bytes: int) -> None:
        if not self._waiting:
            self.life.node.timers.after(RETRY_S, self._retry)
        self._waiting.append((frame, FRAME_BYTES + size_bytes))
        self._waiting_bytes += FRAME_BYTES + size_bytes
        if self._waiting_bytes > MAX_WAITING_BYTES and not self._overflown:
            self._overflown = True
            detail = f"{self._waiting_bytes} bytes of signals wait, and it reads none"
            # Not at once: whoever signals may be in the midst of its own end.
            end = partial(self.link.end, Reason.OVERFLOW, detail)
            self.life.node.timers.after(0.0, end)

    def _retry(self) -> None:
        waiting = self._waiting
        try:
            while waiting and self.up:
                self._send_waiting(waiting[0][0])
                _, size_bytes = waiting.popleft()
                self._waiting_bytes -= size_bytes
        except LinkBusyError:
            self.life.node.timers.after(RETRY_S, self._retry)
        except LinkDownError:
            return

    def _send_waiting(self, frame: Frame) -> None:
        try:
            self.link.tell(SERVICE, frame)
        except LinkMessageError as error:
            # A lane that is full refuses before it looks at the length.
            assert isinstance(frame, frames.Reply), "nothing else is that long"
            log.error("a reply for %s was not sent: %s", self.life.origin, error)
            why = reasons.words(str(error))
            self.link.tell(SERVICE, frames.Failed(frame.id, "long_reply", why))

    def told(self, reason: ExitReason) -> frames.Told:
        """Return a reason as it crosses."""
        return reasons.told(reason, node=self._node_name, codec=self.codec)

    def told_error(self, error: BaseException) -> frames.Told:
        """Return an exception as it crosses."""
        return reasons.told_error(error, node=self._node_name)

    # --- calls ------------------------------------------------------------------------

    def begin(self, ref: From) -> int:
        """Give a call of ours its number."""
        number = next(self._numbers)
        self.calls[number] = ref
        return number

    def give_up(self, number: int) -> None:
        """Tell the peer that nobody waits for a call, unless it has answered."""
        if self.calls.pop(number, None) is not None:
            self.signal(frames.Cancel(number))

    # --- ends -------------------------------------------------------------------------

    def watch(self, proxy: RemoteProcess) -> int:
        """Ask to be told of the end of a process; return the number of that."""
        number = next(self._numbers)
        self.watches[number] = proxy
        self.signal(frames.Watch(number, proxy.target))
        return number

    def unwatch(self, number: int) -> None:
        """Take that back."""
        if self.watches.pop(number, None) is not None:
            self.signal(frames.Unwatch(number))

    def link_to(self, ours: int, theirs: int) -> None:
        """Link two processes."""
        self.unlinks.linked((ours, theirs))
        self.signal(frames.LinkTo(ours, theirs))

    def unlink(self, ours: int, theirs: int) -> None:
        """Undo a link."""
        if self.up:
            number = self.unlinks.begin((ours, theirs))
            self.signal(frames.Unlink(ours, theirs, number))

    def forget_calls(self, numbers: Iterable[int]) -> None:
        """Let go of the calls of a process that has ended."""
        for number in numbers:
            self.calls.pop(number, None)

    # --- the end ----------------------------------------------------------------------

    @enable_ki_protection
    def end(self) -> None:
        """End all that lives by this link."""
        if not self.up:
            return
        self.up = False
        if self.life.session is self:
            self.life.session = None
        self._waiting.clear()
        for ref in tuple(self.answering.values()):
            ref.give_up()
        self.answering.clear()
        for number, process in self.watched.items():
            if process.on_end is not None:
                process.on_end.pop((self, number), None)
        self.watched.clear()
        for proxy in self.life.proxies(self):
            proxy.finish(NOCONNECTION)
        # Those by a name whose holder has ended since.
        for ref in tuple(self.calls.values()):
            ref.server_down(NOCONNECTION)
        self.calls.clear()

    def watch_for(self, number: int, process: Process) -> None:
        """Have the peer told of the end of a process of ours."""
        self.watched[number] = process
        if process.on_end is None:
            process.on_end = {}
        process.on_end[self, number] = partial(self._ended, number, process)

    def watch_no_more(self, number: int) -> None:
        """Undo that."""
        process = self.watched.pop(number, None)
        if process is not None and process.on_end is not None:
            process.on_end.pop((self, number), None)

    def _ended(self, number: int, process: Process) -> None:
        reason = process.reason
        assert reason is not None, "it has ended"
        if self.watched.pop(number, None) is not None:
            self.signal(frames.Ended(number, self.told(reason)))
