"""An attempt without blocks inside blocks: the shortest way to an upstream.

What :meth:`~atomr_infer.remote.provider.ProviderClient.generation` is, for who
calls :meth:`Passage.end` whatever comes; and no second key is tried here.  Whoever
finds that too little asks again in the ordinary way, which knows the rest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from atomr_infer.errors import InferenceError
from atomr_infer.remote.answer import AnswerChunks, first_token_timeout, is_late
from atomr_infer.remote.blot import blot
from atomr_infer.remote.http.response import HttpResponse
from atomr_infer.runtimes.contract import NotPassedError

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.remote.http.client import HttpClient
    from atomr_infer.remote.http.connections import Exchange
    from atomr_infer.remote.provider import ProviderClient, ProviderRequest
    from atomr_infer.remote.session import Generation
    from atomr_infer.runtimes.credentials import Credentials, Grant

C = TypeVar("C")

_OK = 200


class Passage(Generic[C]):
    """One attempt; :meth:`begin` it once, and :meth:`end` it whatever came."""

    __slots__ = (
        "_batch",
        "_client",
        "_exchange",
        "_first_by",
        "_generation",
        "_grant",
        "_http",
        "_keys",
        "_request",
        "_response",
        "_total_at",
    )

    def __init__(  # noqa: PLR0913 - all but two by keyword
        self,
        client: ProviderClient,
        http: HttpClient,
        *,
        generation: Generation[HttpClient],
        keys: Credentials,
        batch: ExecuteBatch,
        request: ProviderRequest[C],
        total_at: float,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            client: whose attempt it is.
            http: what sends it.
            generation: the session's; joined here.
            keys: the session's.
            batch: what is asked.
            request: how.
            total_at: when it must be over, in trio's clock.
        """
        self._client = client
        self._http = http
        self._generation = generation
        self._keys = keys
        self._batch = batch
        self._request = request
        self._total_at = total_at
        self._first_by = math.inf
        self._grant: Grant | None = None
        self._response: HttpResponse | None = None
        self._exchange: Exchange | None = None
        client.active += 1
        generation.users += 1

    async def begin(self) -> AnswerChunks[C]:
        """Send the request and return its answer, whose head is here.

        Raises:
            NotPassedError: it is to be asked in the ordinary way.
            InferenceError: it failed.

        Cancellation: :meth:`end` closes the connection.
        """
        keys, client = self._keys, self._client
        self._first_by = min(
            trio.current_time() + client.timeouts.first_token_s, self._total_at
        )
        try:
            grant = self._grant = await keys.current()
        except InferenceError as error:
            raise NotPassedError from error
        try:
            return await self._asked(grant)
        except InferenceError as error:
            blot(error, grant.secret)
            self._grant = None
            if keys.refused(grant, error) and await self._has_another(grant):
                raise NotPassedError from error
            if is_late(error):
                raise first_token_timeout(client.timeouts) from error
            raise

    async def _asked(self, grant: Grant) -> AnswerChunks[C]:
        client, request = self._client, self._request
        call = client.call(self._http, request, self._first_by, grant.secret)
        exchange = self._exchange = await self._http.start(call)
        response = self._response = HttpResponse(exchange)
        if response.status != _OK:
            raise await client.fault_of(response, grant.secret)
        self._keys.accepted(grant)
        return AnswerChunks(
            self._batch,
            response,
            request.reader(grant.secret),
            timeouts=client.timeouts,
            first_by=self._first_by,
            total_at=self._total_at,
            secret=grant.secret,
            warnings=request.warnings,
        )

    async def _has_another(self, grant: Grant) -> bool:
        """Whether the ordinary way would try another key."""
        try:
            other = await self._keys.another([grant])
        except InferenceError:
            return True  # it will say so itself
        if other is not None:
            self._keys.released(other)
        return other is not None

    async def end(self, error: BaseException | None) -> None:
        """Let go of the connection; it is closed where the answer is not whole.

        Args:
            error: why it ended; None: the answer is whole.
        """
        grant, self._grant = self._grant, None
        if grant is not None:
            if isinstance(error, InferenceError):
                self._keys.refused(grant, error)
            elif self._response is None:
                self._keys.released(grant)
        if self._response is not None:
            self._response.end()
        try:
            if self._exchange is not None:
                await self._http.finish(self._exchange)
        finally:
            self._client.active -= 1
            self._generation.leave()


def begin_passage(
    client: ProviderClient,
    batch: ExecuteBatch,
    request: ProviderRequest[C],
    *,
    total_at: float,
) -> Passage[C] | None:
    """Return an attempt without a block; None: the session must be remade first.

    It must be ended.  Nothing is waited for here.

    Args:
        client: whose attempt it is.
        batch: what is asked.
        request: how.
        total_at: when it must be over, in trio's clock.
    """
    generation = client.session.current
    if generation is None:
        return None
    return Passage(
        client,
        generation.client,
        generation=generation,
        keys=client.session.credentials,
        batch=batch,
        request=request,
        total_at=total_at,
    )
