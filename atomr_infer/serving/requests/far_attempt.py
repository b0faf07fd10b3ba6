"""Asking a replica of another node: the request goes there, its chunks come back.

To the rest of the serving tree this is a permit with a runner, as a replica of this
node gives one: retries, fallbacks, hedges and what the client has seen are decided
here, and only an attempt crosses.

What is known when a link ends decides what the request's plan may do.  As long as
nothing was sent, another replica is asked as if this one had not been there
(:class:`NothingSentError`).  Behind that the request may have run, so it counts as
an attempt that was cut (:class:`~atomr_infer.errors.NodeLostError`).
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.errors import LinkDownError, LinkError
from atomr_infer.errors import (
    InferenceError,
    InvalidRequestError,
    NodeLostError,
    NotReadyError,
    OverloadedError,
)
from atomr_infer.model.batch import RawChunk, TokenChunk
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.embeddings import Embeddings
from atomr_infer.model.tensors import Inferred
from atomr_infer.policy.routing.replica_choice import size_of
from atomr_infer.serving.requests.far_held import FarHeld
from atomr_infer.serving.requests.stages import CURRENT
from atomr_infer.serving.requests.told_stages import ToldStages
from atomr_infer.wire.nodes.frames import (
    DEEPEST,
    LONGEST_S,
    VERSION,
    Admitted,
    Ask,
    Count,
    Credit,
    Ended,
    Failed,
    FrameError,
    Opening,
    Refused,
    Staged,
    answer_of,
    encoded,
    error_of,
    headers_for,
)
from atomr_infer.wire.nodes.pieces import PIECE_BYTES, Joiner, cut

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr.http2 import LinkStream
    from atomr_infer.model.batch import ExecuteBatch, Usage
    from atomr_infer.model.embeddings import EmbedRequest
    from atomr_infer.model.tensors import InferRequest
    from atomr_infer.serving.replicas.far_replica import FarReplica
    from atomr_infer.serving.requests.leg import Leg
    from atomr_infer.serving.shared import Serving
    from atomr_infer.wire.nodes.frames import Answer

log = logging.getLogger(__name__)

SERVICE = "infer"
"""The name under which nodes ask each other."""

CREDIT_BYTES = 64 * 1024
"""What a serving node may send before its client has taken it: it bounds what a slow
client makes this node hold, and keeps its stream out of the others' way."""

_RENEW_BYTES = CREDIT_BYTES // 2

# How long one waits for a stream while all are in use.
_STREAM_WAIT_S = 5.0

# They are told before the first chunk and behind the last one.
_MOST_STAGED = 8

_LAST = Refused | Failed | Ended | Embeddings | Inferred | Count

# Nothing is looked at here: the serving node knows what its model can do.
_EVERYTHING = Capabilities(features=frozenset(Feature))


class NothingSentError(Exception):
    """A replica could not be asked, and has heard nothing of the request.

    Attributes:
        error: what it comes to when there is no other replica.
    """

    def __init__(self, error: InferenceError) -> None:
        super().__init__(str(error))
        self.error = error


class FarCall:
    """One request on another node's replica.

    Attributes:
        replica: the one.
        ignored: what had no effect; known when it is admitted.
        composed: whether it is answered by asking others; likewise.
        counted: what its upstream had told by its end; None: nothing.
        active: 1.
        capabilities: everything: they are looked at over there.
    """

    capabilities = _EVERYTHING
    active = 1

    def __init__(self, replica: FarReplica, stream: LinkStream) -> None:
        self.replica = replica
        self.ignored: tuple[str, ...] = ()
        self.composed = False
        self.counted: Usage | None = None
        self._stages = ToldStages(CURRENT.get())
        self._staged = 0
        self._stream = stream
        self._joiner = Joiner()
        self._over = False
        self._taken_bytes = 0
        self._size_bytes = 0

    # --- as a runner --------------------------------------------------------------

    @asynccontextmanager
    async def execute(
        self, _: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk | RawChunk]]:
        """Give the chunks of the request, which has been sent."""
        yield self

    def __aiter__(self) -> FarCall:
        return self

    async def __anext__(self) -> TokenChunk | RawChunk:
        """Return the next chunk; the last one was taken.

        Raises:
            InferenceError: what failed over there, or the node is lost.
        """
        if self._taken_bytes >= _RENEW_BYTES:
            taken, self._taken_bytes = self._taken_bytes, 0
            await self._say(encoded(Credit(taken)))
        answer = await self._next()
        match answer:
            case TokenChunk() | RawChunk():
                self._taken_bytes += self._size_bytes
                return answer
            case Ended(counted=counted):
                self.counted = counted
                raise StopAsyncIteration
            case _:
                raise self._nonsense(f"a {type(answer).__name__} among chunks")

    async def embed(self, _: EmbedRequest) -> Embeddings:
        """Return the vectors of the request, which has been sent."""
        found = await self._next()
        if not isinstance(found, Embeddings):
            raise self._nonsense(f"a {type(found).__name__} for vectors")
        return found

    async def infer(self, _: InferRequest) -> Inferred:
        """Return what came of the tensors of the request, which has been sent."""
        found = await self._next()
        if not isinstance(found, Inferred):
            raise self._nonsense(f"a {type(found).__name__} for tensors")
        return found

    async def count_tokens(self, _: ExecuteBatch) -> int:
        """Return the tokens of the request, which has been sent."""
        found = await self._next()
        if not isinstance(found, Count):
            raise self._nonsense(f"a {type(found).__name__} for a count")
        return found.tokens

    async def failed(self) -> InferenceError:
        """Wait for ever: a call is no engine."""
        await trio.sleep_forever()
        raise AssertionError("it sleeps for ever")

    # --- before it runs -----------------------------------------------------------

    async def admitted(self, rest: bytes) -> None:
        """Send what is left of the request, and wait for its permit.

        Raises:
            InferenceError: it was refused; a ``NodeLostError``: it may run.
        """
        if rest:
            for message in cut(rest):
                await self._say(message)
        answer = await self._next()
        match answer:
            case Admitted(ignored=ignored, composed=composed):
                self.ignored, self.composed = ignored, composed
            case Refused(error=record):
                raise error_of(record)
            case _:
                raise self._nonsense(f"a {type(answer).__name__} for a permit")

    def close(self) -> None:
        """Let go of the stream: at once, where the call is not over."""
        if self._over:
            self._stream.close(wait_for_peer=True)
        else:
            self._stream.abort()
            if self.composed:
                self._stages.lose(self.replica.deployment)

    # --- the stream ---------------------------------------------------------------

    async def _say(self, message: bytes) -> None:
        try:
            await self._stream.send(message)
        except LinkError as error:
            raise self._lost(error) from error

    async def _next(self) -> Answer:
        """Return what is said next; stages are noted.

        Raises:
            InferenceError: it failed over there, or the node is lost.
        """
        while isinstance(answer := await self._said(), Staged):
            self._staged += 1
            if not self.composed or self._staged > _MOST_STAGED:
                raise self._nonsense("stages of what has none, or again and again")
            self._stages.take(answer)
        self._over = isinstance(answer, _LAST)
        if isinstance(answer, Failed):
            self.counted = answer.counted
            raise error_of(answer.error)
        return answer

    async def _said(self) -> Answer:
        try:
            data = await self._value()
            answer = answer_of(data)
        except FrameError as error:
            raise self._nonsense(str(error)) from error
        self._size_bytes = len(data)
        return answer

    async def _value(self) -> bytes:
        while True:
            try:
                message = await self._stream.receive()
            except LinkError as error:
                raise self._lost(error) from error
            if message is None:
                raise self._lost(None)
            value = self._joiner.take(message)
            if value is not None:
                return value

    def _lost(self, error: LinkError | None) -> NodeLostError:
        why = "its answer ended too early"
        if isinstance(error, LinkDownError):
            why = error.reason
        elif error is not None:
            why = "it broke its answer off"
        name = self.replica.node.name
        return NodeLostError(f"the node {name} was lost in the middle: {why}")

    def _nonsense(self, what: str) -> NodeLostError:
        log.warning("the node %s answers with nonsense: %s", self.replica.node, what)
        name = self.replica.node.name
        return NodeLostError(f"the node {name} answered with what makes no sense")


async def hold_far(
    serving: Serving, leg: Leg, replica: FarReplica, *, may_wait: bool
) -> FarHeld:
    """Ask for a permit of another node's replica, with the request.

    Args:
        serving: this node's tree.
        leg: whose attempt it is; has one behind a ``NodeLostError``.
        replica: who is asked.
        may_wait: whether its queue may be waited in.

    Raises:
        NothingSentError: it could not be asked.
        InferenceError: it was refused; a ``NodeLostError``: it may run.

    Cancellation: the request ends over there.
    """
    try:
        data = encoded(_asked(serving, leg, replica, may_wait=may_wait))
    except FrameError as error:
        raise InvalidRequestError(f"it cannot be sent to a node: {error}") from error
    opening = Opening(VERSION, len(data), data[:PIECE_BYTES])
    tokens = size_of(leg.batch)
    turn = replica.send(tokens)
    call: FarCall | None = None
    try:
        call = FarCall(replica, await _opened(replica, opening))
        await call.admitted(data[PIECE_BYTES:])
    except BaseException as error:
        replica.back(turn, tokens)
        if call is not None:
            call.close()
        if isinstance(error, NodeLostError):
            leg.attempt = leg.attempted()
        raise
    return FarHeld(call, tokens, turn)


def _asked(serving: Serving, leg: Leg, replica: FarReplica, *, may_wait: bool) -> Ask:
    request: ExecuteBatch | EmbedRequest | InferRequest
    if leg.whole is None:
        told = leg.batch.client_headers
        told = headers_for(leg.deployment, told, serving.key_headers)
        request = attrs.evolve(leg.batch, client_headers=told)
    else:
        request = attrs.evolve(leg.whole, model=leg.batch.model)
    outer = CURRENT.get()
    return Ask(
        kind=leg.kind,
        deployment=leg.deployment.name,
        replica=replica.number,
        left_s=min(max(leg.deadline_s - trio.current_time(), 0.0), LONGEST_S),
        may_wait=may_wait,
        continues=leg.continues,
        depth=0 if outer is None else min(outer.depth, DEEPEST),
        request=request,
    )


async def _opened(replica: FarReplica, opening: Opening) -> LinkStream:
    name = replica.node.name
    link = replica.link
    if link is None:
        raise NothingSentError(NotReadyError(f"the node {name} is out of reach"))
    try:
        with trio.move_on_after(_STREAM_WAIT_S):
            return await link.begin_stream(SERVICE, opening)
    except LinkError as error:
        gone = NotReadyError(f"the node {name} is out of reach")
        raise NothingSentError(gone) from error
    full = f"all streams to the node {name} are in use"
    raise NothingSentError(OverloadedError(full, code="queue_full"))
