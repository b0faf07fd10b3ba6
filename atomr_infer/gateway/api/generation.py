"""One generation, from the request's body to the last byte of its answer.

The same for every dialect: an ``Ingress`` reads and writes, this drives; what
becomes of the chunks is in :mod:`atomr_infer.gateway.api.answers`.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.errors import InferenceError, InternalError
from atomr_infer.gateway.access.conversations import Conversations, is_kept
from atomr_infer.gateway.access.entitled import discreet, entitled
from atomr_infer.gateway.access.tenants import Tenants
from atomr_infer.gateway.api.answers import StreamAnswer, WholeAnswer
from atomr_infer.gateway.exchanges.answer_headers import (
    failed_headers,
    request_id_headers,
)
from atomr_infer.gateway.exchanges.client_wishes import (
    tells_cost,
    timeout_of,
    wants_early_stream,
    with_wishes,
)
from atomr_infer.gateway.exchanges.room import room_of
from atomr_infer.gateway.exchanges.silences import Silences
from atomr_infer.serving.replicas.starting import starting
from atomr_infer.serving.requests.first_attempt import OrdinaryWayError
from atomr_infer.serving.requests.request import run_request
from atomr_infer.serving.requests.straight import straight
from atomr_infer.serving.shared import Serving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomr_infer.gateway.exchanges.exchange import Exchange
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.serving.requests.first_attempt import Failed
    from atomr_infer.wire.ingress import Asked, Call, Ingress

log = logging.getLogger(__name__)


@attrs.frozen
class Backing:
    """What all requests of a gateway share.

    Attributes:
        serving: what serves them.
        conversations: what responses go on from.
        silences: what keeps silent streams open.
        tenants: tells the clients apart; None: there is nobody to tell apart.
    """

    serving: Serving
    conversations: Conversations
    silences: Silences
    tenants: Tenants | None = None


class Generation:
    """A request to generate, and its answer."""

    def __init__(
        self,
        backing: Backing,
        exchange: Exchange,
        *,
        ingress: Ingress,
        call: Call,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            backing: what serves it.
            exchange: where the answer goes.
            ingress: the route's dialect.
            call: the request, with who asks.
        """
        self._silences = backing.silences
        self._conversations = backing.conversations
        self._tenants = backing.tenants
        self._owner = call.visitor.owner
        self._serving = backing.serving
        self._exchange = exchange
        self._ingress = ingress
        self._call = call
        self._answer: StreamAnswer | WholeAnswer | None = None
        self._read_at = trio.current_time()

    async def run(self) -> None:
        """Answer it, whatever comes of it; its client is always told.

        Cancellation: ends the generation; nothing more is sent.
        """
        request_id = self._call.request_id
        try:
            await self._generate()
        except InferenceError as error:
            await self.fail(error)
        except Exception:
            # The last boundary before the socket: a bug of ours must reach the
            # client as an explicit error, in a stream too, and us by the log.
            log.exception("request %s: internal error", request_id)
            await self.fail(InternalError(f"internal error; request id {request_id}"))
        finally:
            if isinstance(self._answer, StreamAnswer):
                self._silences.watched.discard(self._answer)

    async def _generate(self) -> None:
        failed = None
        glanced = self._glance()
        if glanced is not None:
            if self._tenants is not None:
                await self._tenants.check(self._call, owner=self._owner)
            way = straight(self._serving, glanced.batch, reread=self._reread)
            if way is not None:
                answer = self._answer_to(glanced)
                try:
                    answer.cost = await way.run(answer)
                except OrdinaryWayError as ordinary:
                    failed = ordinary.failed
                else:
                    await answer.finish()
                    return
        try:
            await self._ordinary(failed)
        finally:
            if failed is not None:
                failed.end()

    def _glance(self) -> Asked | None:
        """Return the request, when it can be told at once that it is a usual one."""
        glanced = self._ingress.glance(self._call)
        headers = self._call.headers
        if glanced is None or wants_early_stream(headers):
            return None
        batch = self._entitled(glanced.batch)
        timeout_s = timeout_of(headers)
        if timeout_s is not None:
            batch = attrs.evolve(batch, timeout_s=timeout_s)
        return glanced if batch is glanced.batch else attrs.evolve(glanced, batch=batch)

    def _entitled(self, batch: ExecuteBatch) -> ExecuteBatch:
        return entitled(batch, self._call.visitor, self._call.headers)

    def _reread(self) -> ExecuteBatch:
        return self._entitled(self._ingress.parse(self._call).batch)

    def _answer_to(self, asked: Asked) -> StreamAnswer | WholeAnswer:
        answer: StreamAnswer | WholeAnswer
        if asked.batch.stream:
            answer = StreamAnswer(self._exchange, self._ingress, asked)
            answer.watched = self._silences.watched
            answer.tells_cost = tells_cost(asked.batch.dialect, self._call.headers)
        else:
            answer = WholeAnswer(self._exchange, self._ingress, asked)
        answer.read_at = self._read_at
        answer.room = room_of(self._serving, self._call.visitor.asker)
        if self._tenants is not None:
            answer.note = partial(self._tenants.note, owner=self._owner)
        self._answer = answer
        return answer

    async def _ordinary(self, failed: Failed | None) -> None:
        """Answer it in the ordinary way, prepared for whatever may go wrong."""
        try:
            asked = self._ingress.parse(self._call)
        except InferenceError as error:
            log.info("request %s refused: %s", self._call.request_id, error)
            raise
        if asked.previous is not None:
            asked = await self._resumed(asked)
        if self._tenants is not None:
            await self._tenants.check(self._call, owner=self._owner)
        batch = self._entitled(asked.batch)
        batch = with_wishes(self._serving, batch, self._call.headers)
        if batch is not asked.batch:
            asked = attrs.evolve(asked, batch=batch)
        answer = self._answer_to(asked)
        if isinstance(answer, StreamAnswer) and wants_early_stream(self._call.headers):
            answer.awaited = partial(starting, self._serving, batch.model)
            answer.begin_early()
        if is_kept(asked):
            answer.keep = partial(
                self._conversations.keep, self._call, owner=self._owner
            )
        served = await run_request(self._serving, batch, answer, failed)
        answer.cost = served.cost
        await answer.finish()

    async def _resumed(self, asked: Asked) -> Asked:
        asked, self._call = await self._conversations.resume(
            self._ingress, self._call, asked, owner=self._owner
        )
        return asked

    def _room(self) -> Iterable[tuple[bytes, bytes]]:
        room = room_of(self._serving, self._call.visitor.asker)
        return () if room is None else room()

    async def fail(self, error: InferenceError) -> None:
        """Tell the client that it failed: by status, or inside its stream."""
        error = discreet(error, self._call.visitor)
        if self._exchange.started:
            assert self._answer is not None, "only an answer starts an exchange"
            await self._answer.fail(error)
            return
        request_id = self._call.request_id
        refusal = self._ingress.refuse(error, request_id)
        headers = [
            *refusal.headers,
            *request_id_headers(request_id, self._ingress.dialect),
            *failed_headers(error),
            *self._room(),
        ]
        await self._exchange.answer(refusal.status, refusal.body, headers)
