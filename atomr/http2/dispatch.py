"""What is done with each thing that a peer sends.

A handler of a service that raises is that service's bug: it is logged, a caller is
told, and the link goes on.  A message that is not of the service's type is the
peer's: the link ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import outcome
import trio

from atomr.errors import LinkCallError, short
from atomr.http2 import frames
from atomr.http2.core import log
from atomr.http2.events import (
    Lane,
    PeerLeft,
    Ponged,
    Reason,
    StreamData,
    StreamEnded,
    StreamOpened,
    StreamReset,
)
from atomr.http2.outlets import QUEUE_BYTES
from atomr.http2.own_streams import OwnStreams
from atomr.http2.problems import PeerError
from atomr.http2.services import IncomingCall, run_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from atomr.http2.core import Core
    from atomr.http2.events import Event
    from atomr.http2.link import Link
    from atomr.http2.services import Service

MAX_INCOMING_CALLS = 4096
"""Calls of one peer at once that were not answered; more are refused as busy."""


class Dispatch:
    """Does what the events of one link say.

    Attributes:
        streams: those that are no lanes.
    """

    def __init__(self, core: Core, link: Link) -> None:
        self._core = core
        self._link = link
        self.streams = OwnStreams(core, link, self)
        self._handlers: dict[type, Callable[[Any], None]] = {
            frames.Tell: self._on_tell,
            frames.Call: self._on_call,
            frames.Reply: self._on_reply,
            frames.Fail: self._on_fail,
            frames.Cancel: self._on_cancel,
            frames.Probe: self._on_probe,
            frames.Probed: self._on_probed,
            frames.Goodbye: self._on_goodbye,
            frames.Invite: self.streams.on_invite,
            StreamOpened: self.streams.on_opened,
            StreamData: self.streams.on_data,
            StreamEnded: self.streams.on_ended,
            StreamReset: self.streams.on_reset,
            Ponged: self._on_pong,
            PeerLeft: self._on_left,
        }

    def handle(self, event: Event) -> None:
        """Do what one event says.

        Raises:
            PeerError: the link must end.
        """
        handler = self._handlers.get(type(event))
        if handler is None:
            raise PeerError("it sent a message that has no place there")
        handler(event)

    def decoded(self, service: Service[Any], body: msgspec.Raw) -> object:
        """Return a message of a service.

        Raises:
            PeerError: it is none.
        """
        try:
            return service.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PeerError("a message is not of its service's type") from error

    def _on_tell(self, frame: frames.Tell) -> None:
        service = self._core.services.get(frame.service)
        if service is None or service.tell is None:
            self._core.drop(frame.service)
            return
        message = self.decoded(service, frame.body)
        try:
            service.tell(self._link, message)
        except Exception:  # noqa: BLE001 - a boundary: reported
            log.exception("%s told %s, which failed", self._core.peer, frame.service)

    def _on_call(self, frame: frames.Call) -> None:
        core = self._core
        service = core.services.get(frame.service)
        if service is None or (service.call is None and service.answer is None):
            self._refuse(frame.id, "no_service", f"{frame.service!r} takes no calls")
            return
        if (
            len(core.incoming) >= MAX_INCOMING_CALLS
            or core.protocol.outlets.queued_bytes > QUEUE_BYTES
        ):
            self._refuse(frame.id, "busy", "too many calls wait here already")
            return
        if frame.id in core.incoming:
            raise PeerError("it used the number of a call twice")
        message = self.decoded(service, frame.body)
        call = IncomingCall(self._link, frame.id)
        core.incoming[frame.id] = call
        if service.answer is not None:
            core.spawn(self._answer, call, service, message)
            return
        assert service.call is not None
        try:
            service.call(call, message)
        except Exception as error:  # noqa: BLE001 - a boundary: reported
            self._failed(call, error)

    async def _answer(
        self, call: IncomingCall, service: Service[Any], message: object
    ) -> None:
        assert service.answer is not None
        try:
            await run_answer(call, service.answer, message)
        except Exception as error:  # noqa: BLE001 - a boundary: reported
            self._failed(call, error)

    def _failed(self, call: IncomingCall, error: Exception) -> None:
        log.error("call of %s failed", self._core.peer, exc_info=error)
        call.fail("failed", f"{type(error).__name__}: {short(str(error))}")

    def _refuse(self, number: int, code: str, detail: str) -> None:
        self._core.put(Lane.MSG, frames.Fail(number, code, detail))

    def _on_reply(self, frame: frames.Reply) -> None:
        pending = self._core.calls.get(frame.id)
        if pending is not None:
            self._core.calls.settle(pending, outcome.Value(frame.body))

    def _on_fail(self, frame: frames.Fail) -> None:
        pending = self._core.calls.get(frame.id)
        if pending is not None:
            error = LinkCallError(
                self._core.peer, pending.service, frame.code, frame.detail
            )
            self._core.calls.settle(pending, outcome.Error(error))

    def _on_cancel(self, frame: frames.Cancel) -> None:
        call = self._core.incoming.pop(frame.id, None)
        if call is not None:
            call.cancel()

    def _on_probe(self, frame: frames.Probe) -> None:
        # Not answered here: it asks whether another task than this one runs.
        core = self._core
        core.probed.append(frame.id)
        if len(core.probed) > MAX_PROBES:
            raise PeerError("it floods us with probes", flood=True)
        round_trip_s = frame.round_trip_us / 1e6
        core.heartbeat.asked(
            frame.id, trio.current_time(), seen=frame.seen, round_trip_s=round_trip_s
        )
        core.keep_now()

    def _on_probed(self, frame: frames.Probed) -> None:
        self._core.heartbeat.probed(frame.id, trio.current_time())

    def _on_pong(self, _: Ponged) -> None:
        self._core.heartbeat.ponged(trio.current_time())

    def _on_goodbye(self, frame: frames.Goodbye) -> None:
        self._core.end(Reason.GOODBYE, f"the peer says {frame.reason}")

    def _on_left(self, event: PeerLeft) -> None:
        why = f": {event.said}" if event.said else ""
        self._core.end(Reason.PEER_CLOSED, f"the peer ended it, code {event.code}{why}")


MAX_PROBES = 64
"""Probes that wait for the keeper, which answers all of them when it runs."""
