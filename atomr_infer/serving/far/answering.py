"""Answering another node: its request runs here as one of our own would.

It is a process of the ``requests`` supervisor, waits in its replica's queue, passes
the deployment's gates and its breaker, and gives back what it holds when it ends.  Its
chunks go onto the link's stream as far as the asking node has room for them; when that
has left, the stream is reset, and so the work ends at once.

A peer is known, not trusted: what it sends is bounded, and what makes no sense ends
its stream and nothing else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

import trio

from atomr.errors import LinkError, NoProcessError, ProcessKilledError, StartError
from atomr.process import attached
from atomr.waking import Parked
from atomr_infer.errors import (
    DeadlineError,
    InferenceError,
    NotReadyError,
    UpstreamProtocolError,
)
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.tensors import InferRequest
from atomr_infer.serving.names import REQUESTS
from atomr_infer.serving.requests.far_attempt import CREDIT_BYTES
from atomr_infer.serving.requests.leg import Leg
from atomr_infer.serving.requests.stages import CURRENT, Stage
from atomr_infer.serving.requests.terms import Terms
from atomr_infer.serving.requests.told_stages import told
from atomr_infer.serving.requests.whole_calls import (
    NO_TOKENS,
    TOKENS,
    batch_of,
    bound_of,
    once,
    tensors_of,
    vectors_of,
)
from atomr_infer.wire.nodes.frames import (
    MAX_VALUE_BYTES,
    VERSION,
    Admitted,
    Count,
    Ended,
    Failed,
    FrameError,
    Kind,
    Refused,
    ask_of,
    credit_of,
    encoded,
    record_of,
)
from atomr_infer.wire.nodes.pieces import Joiner, cut

if TYPE_CHECKING:
    from atomr.http2 import LinkStream
    from atomr.refs import Pid
    from atomr_infer.model.batch import RawChunk, TokenChunk
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.requests.delivery import Attempt
    from atomr_infer.serving.requests.whole_calls import Asks
    from atomr_infer.serving.shared import Serving
    from atomr_infer.wire.nodes.frames import Answer, Ask, Opening, Staged

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_READING_BYTES = 256 * 1024 * 1024
"""All requests of other nodes that are not read whole yet, together."""

_READ_WITHIN_S = 60.0

# The last word is on its way; the asking node ends its side behind it.
_PART_WITHIN_S = 5.0


class Answering:
    """Serves the streams of other nodes."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._reading_bytes = 0
        self._running = 0
        self._ended = Parked()

    async def idle(self) -> None:
        """Wait until nothing is answered."""
        while self._running:
            await self._ended.wait()

    async def serve(self, stream: LinkStream, opening: Opening) -> None:
        """Serve one stream to its end.

        Cancellation: ends the work; it is that of a peer that has left.
        """
        answer = _Answer(self._serving, stream)
        self._running += 1
        try:
            ask = await self._read(stream, opening)
            await answer.run(ask)
        except FrameError as error:
            log.warning("the node %s asks for nonsense: %s", stream.link.peer, error)
            stream.abort()
        except LinkError as error:
            log.info("the node %s is gone: %s", stream.link.peer, error)
        finally:
            self._running -= 1
            self._ended.wake()

    async def _read(self, stream: LinkStream, opening: Opening) -> Ask:
        """Return what is asked.

        Raises:
            FrameError: it makes no sense, is too long, or is not told in time.
        """
        if opening.version != VERSION:
            raise FrameError(f"it speaks {opening.version}, and we {VERSION}")
        left = opening.size_bytes - len(opening.piece)
        if left < 0 or opening.size_bytes > MAX_VALUE_BYTES:
            raise FrameError(f"a request of {opening.size_bytes} bytes")
        if not left:
            return ask_of(opening.piece)
        if self._reading_bytes + left > MAX_READING_BYTES:
            raise FrameError("more is being read already than there is room for")
        self._reading_bytes += left
        try:
            with trio.fail_after(_READ_WITHIN_S):
                rest = await _whole(stream, left)
        except trio.TooSlowError as error:
            raise FrameError(f"no request within {_READ_WITHIN_S:g} s") from error
        finally:
            self._reading_bytes -= left
        return ask_of(opening.piece + rest)


async def _whole(stream: LinkStream, size_bytes: int) -> bytes:
    joiner = Joiner(max_bytes=size_bytes)
    while True:
        message = await stream.receive()
        if message is None:
            raise FrameError("it ended in the middle of its request")
        value = joiner.take(message)
        if value is not None:
            if len(value) != size_bytes:
                raise FrameError(f"{len(value)} bytes where {size_bytes} were to come")
            return value


class _Answer:
    """One request of another node, and the receiver of its chunks."""

    begun = False

    def __init__(self, serving: Serving, stream: LinkStream) -> None:
        self._serving = serving
        self._stream = stream
        self._credit = CREDIT_BYTES
        self._admitted = False
        self._attempt: Attempt | None = None
        # What is asked of others for it; None: it is not answered so.
        self._stage: Stage | None = None
        self._staged: Staged | None = None

    def admitted(self) -> None:
        """Nothing to do: it is told with what has no effect."""

    async def run(self, ask: Ask) -> None:
        """Make the request, and say how it went."""
        outcome = "cancelled"
        try:
            await self._as_process(ask)
            outcome = "completed"
        except InferenceError as error:
            outcome = error.kind
            with trio.move_on_after(_PART_WITHIN_S) as last:
                await self._tell_failure(error)
            if last.cancelled_caught:
                self._stream.abort()  # nobody takes what is on its way
                return
        finally:
            log.info(
                "request %s of the node %s: deployment=%s/%d outcome=%s",
                ask.request.request_id,
                self._stream.link.peer.name,
                ask.deployment,
                ask.replica,
                outcome,
            )
        # So neither side has to reset a stream that is over.
        self._stream.end()
        with trio.move_on_after(_PART_WITHIN_S):
            while await self._stream.receive() is not None:
                pass  # credit that is needed no more

    async def _as_process(self, ask: Ask) -> None:
        try:
            async with attached(REQUESTS, id=ask.request.request_id) as pid:
                with trio.move_on_after(ask.left_s) as scope:
                    await self._work(ask, pid)
        except (ProcessKilledError, NoProcessError, StartError) as error:
            raise NotReadyError("the node is shutting down") from error
        if scope.cancelled_caught:
            raise DeadlineError(f"the request had {ask.left_s:g} s left")

    async def _work(self, ask: Ask, pid: Pid) -> None:
        serving, name = self._serving, ask.deployment
        deployment = serving.deployments.get(name)
        if deployment is None:
            raise NotReadyError(f"the node does not know the deployment {name!r}")
        if serving.asked_by(name):
            self._stage = Stage(ask.request.model, ask.depth)
            CURRENT.set(self._stage)  # this task is this request's
        request, replica = ask.request, self._replica(ask)
        ends_at = trio.current_time() + ask.left_s
        if not isinstance(request, ExecuteBatch):
            bound = None if serving.gates.is_empty else bound_of(request)
            leg = Leg(
                serving,
                deployment,
                batch_of(request),
                deadline_s=ends_at,
                bound=bound,
                at=replica,
            )
            if isinstance(request, InferRequest):
                inferred = await self._once(leg, pid, ask, tensors_of(request))
                await self._end(inferred)
            else:
                vectors = await self._once(leg, pid, ask, vectors_of(request))
                await self._end(vectors)
        elif ask.kind is Kind.COUNT:
            leg = Leg(
                serving,
                deployment,
                request,
                deadline_s=ends_at,
                bound=NO_TOKENS,
                at=replica,
            )
            await self._say(Count(await self._once(leg, pid, ask, TOKENS)))
        else:
            leg = Leg(serving, deployment, request, deadline_s=ends_at, at=replica)
            await self._generate(leg, pid, ask)

    async def _once(self, leg: Leg, pid: Pid, ask: Ask, asks: Asks[T]) -> T:
        async with leg.lease(pid, may_wait=ask.may_wait) as held:
            await self._admit(())
            return await once(leg, held, asks)

    async def _generate(self, leg: Leg, pid: Pid, ask: Ask) -> None:
        terms = Terms(may_wait=ask.may_wait, past_filter=False, continues=ask.continues)
        leg.continues = ask.continues
        async with leg.lease(pid, may_wait=ask.may_wait) as held:
            attempt = held.attempt = await leg.prepared(held)
            self._attempt = attempt
            await self._admit(attempt.ignored)
            await leg.run(held, attempt, self, terms)
        await self._end(Ended(attempt.counted))

    def _replica(self, ask: Ask) -> ReplicaState:
        for replica in self._serving.replicas(ask.deployment):
            if replica.number == ask.replica:
                return replica
        raise NotReadyError(
            f"{ask.deployment}/{ask.replica} is not on the node "
            f"{self._serving.node.name}"
        )

    async def _admit(self, ignored: tuple[str, ...]) -> None:
        self._admitted = True
        await self._say(Admitted(ignored, composed=self._stage is not None))

    async def _tell_stages(self) -> None:
        """Tell what is asked of others, where that is news."""
        if self._stage is None or not self._admitted:
            return
        staged = told(self._stage.stages)
        if staged != self._staged:
            self._staged = staged
            await self._say(staged)

    async def _end(self, answer: Answer) -> None:
        """Say the last word."""
        await self._tell_stages()
        await self._say(answer)

    async def _tell_failure(self, error: InferenceError) -> None:
        """Say the last word; what of it cannot be sent is left out, and logged."""
        try:
            await self._tell_stages()
        except UpstreamProtocolError as untold:
            log.warning("what a request asked of others is not told: %s", untold)
        try:
            await self._say(self._told(error))
        except UpstreamProtocolError as untold:
            log.warning("why a request failed is not told: %s", untold)
            await self._say(self._told(untold))

    def _told(self, error: InferenceError) -> Answer:
        if not self._admitted:
            return Refused(record_of(error))
        counted = None if self._attempt is None else self._attempt.counted
        return Failed(record_of(error), counted)

    # --- the stream ---------------------------------------------------------------

    async def chunk(self, chunk: TokenChunk | RawChunk, _: Attempt) -> None:
        """Send a chunk, as soon as there is room for it over there."""
        while self._credit <= 0:
            await self._receive_credit()
        if self._staged is None:
            await self._tell_stages()  # the client's headers say them
        self._credit -= await self._say(chunk)

    async def _receive_credit(self) -> None:
        message = await self._stream.receive()
        if message is None:
            raise FrameError("it ended its side in the middle")
        self._credit += credit_of(message).size_bytes
        if self._credit > MAX_VALUE_BYTES:
            raise FrameError(f"a credit of {self._credit} bytes in all")

    async def _say(self, answer: Answer) -> int:
        """Say something; return how many bytes it has."""
        try:
            data = encoded(answer)
        except FrameError as error:
            raise UpstreamProtocolError(f"it cannot be sent: {error}") from error
        for message in cut(data):
            await self._stream.send(message)
        return len(data)
