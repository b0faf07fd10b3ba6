"""Runs generations on the Gemini API.

A runner is one session: an HTTP client and the keys.  A generation is one
exchange, so leaving the generation's block closes its connection, and the
upstream stops.

A client of the same dialect has its own bytes sent and gets the upstream's; any
other request is written in this dialect, and its answer read from it.

Time: ``first_token_s`` runs from the start of the attempt, connecting
included, to its first chunk; for an answer that is not streamed that is the
whole of it.  ``idle_s`` runs between chunks.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import (
    InferenceError,
    UpstreamAuthError,
    UpstreamProtocolError,
)
from atomr_infer.model.batch import RawChunk, TokenChunk
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.embeddings import Embeddings
from atomr_infer.model.usage import Usage
from atomr_infer.remote.answer import (
    AnswerChunks,
    first_token_timeout,
    is_streamed,
    within,
)
from atomr_infer.remote.blot import without_secret
from atomr_infer.remote.credentials import NoKey
from atomr_infer.remote.session import open_session
from atomr_infer.runtimes.credentials import NO_HEADERS
from atomr_infer.wire.gemini.counting import decode_count
from atomr_infer.wire.gemini.embeddings import decode_embed, encode_embed, texts_of
from atomr_infer.wire.gemini.upstream import encode_count, encode_request
from atomr_infer.wire.gemini.upstream_errors import classify, parse_error
from atomr_infer.wire.gemini.upstream_raw import (
    RawAnswer,
    absent_members,
    with_members,
)
from atomr_infer.wire.gemini.upstream_stream import GeminiAnswer
from atomr_infer_gemini import paths
from atomr_infer_gemini.config import GeminiOptions, parse_options
from atomr_infer_gemini.exchange import Exchanges, open_client
from atomr_infer_gemini.models import ANY_MODEL, capabilities_of, model_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment, Timeouts
    from atomr_infer.model.embeddings import EmbedRequest, Vector
    from atomr_infer.remote.tcp import Connect
    from atomr_infer.runtimes.credentials import Credentials

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_gemini_runner(
    deployment: Deployment, credentials: Credentials, *, connect: Connect | None = None
) -> AsyncIterator[GeminiRunner]:
    """Open a client for a deployment; no connection is made before it is used.

    Args:
        deployment: whose options and timeouts apply.
        credentials: hands out the key or token of each request.
        connect: opens streams; None: TCP and TLS.

    Raises:
        ConfigError: an option is wrong.
        UpstreamAuthError: Google itself, and no key.
    """
    options = parse_options(deployment)
    if isinstance(credentials, NoKey) and options.needs_credential:
        raise UpstreamAuthError(f"no key for {options.endpoint}")
    timeouts = deployment.timeouts
    opening = partial(open_client, options, timeouts, connect)
    async with open_session(opening, credentials) as session:
        exchanges = Exchanges(
            session=session,
            timeouts=timeouts,
            is_vertex=options.is_vertex,
            replay=deployment.retry.idempotent,
        )
        yield GeminiRunner(exchanges, options=options, timeouts=timeouts)


class GeminiRunner:
    """One client of the Gemini API; see ``ModelRunner`` for the contract."""

    def __init__(
        self, exchanges: Exchanges, *, options: GeminiOptions, timeouts: Timeouts
    ) -> None:
        self._exchanges = exchanges
        self._options = options
        self._defaults = options.defaults
        self._timeouts = timeouts
        self._active = 0

    def __repr__(self) -> str:
        return f"<GeminiRunner {self._exchanges.session.client!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """What some model behind the API can do."""
        return ANY_MODEL

    def capabilities_for(self, model: str) -> Capabilities:
        """Return what one model can do."""
        return capabilities_of(model)

    @property
    def active(self) -> int:
        """Generations now on a connection."""
        return self._active

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk | RawChunk]]:
        """Run one generation; the block's end is the generation's end.

        Raises:
            InferenceError: from entering the block or from the iteration.

        Cancellation: leaving the block before the last chunk closes the
            connection before the block's exit returns.
        """
        method = paths.STREAM if batch.stream else paths.GENERATE
        path = paths.path(batch.model, method, self._options)
        source = batch.source
        if source is not None and source.dialect is Dialect.GEMINI:
            body, raw = self._passed_on(source.body), True
        else:
            body, raw = self._encoded(batch), False
        first_by = trio.current_time() + self._timeouts.first_token_s
        self._active += 1
        try:
            async with self._exchanges.post(
                path, body, first_by=first_by, client_headers=batch.client_headers
            ) as answer:
                reader: RawAnswer | GeminiAnswer
                if raw:
                    reader = RawAnswer(batch, secret=answer.secret)
                else:
                    reader = GeminiAnswer(
                        batch, new_id=_new_call_id, secret=answer.secret
                    )
                chunks = AnswerChunks[TokenChunk | RawChunk](
                    batch,
                    answer.response,
                    reader,
                    timeouts=self._timeouts,
                    first_by=first_by,
                    secret=answer.secret,
                )
                # Where a proxy took alt=sse away, the stream is JSON.
                chunks.streamed = chunks.streamed or batch.stream
                yield chunks
        finally:
            self._active -= 1

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each input, in order.

        More inputs than one request takes are sent in several, one by one.

        Raises:
            InferenceError: the upstream refuses, or answers something else.

        Cancellation: closes the connection.
        """
        texts = texts_of(request)
        method = paths.embed_method(request.model, self._options)
        resource = paths.resource(request.model, self._options)
        path = paths.path(request.model, method.value, self._options)
        vectors: list[Vector] = []
        usage = Usage()
        for start in range(0, len(texts), method.max_inputs):
            some = texts[start : start + method.max_inputs]
            body = encode_embed(request, some, method=method, resource=resource)
            found = decode_embed(await self._ask(path, body), some)
            if found is None:
                raise _not_understood("an answer with one vector for each text")
            vectors += found.vectors
            usage += found.usage
        return Embeddings(vectors=tuple(vectors), usage=usage, model=request.model)

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Return the tokens of a request's prompt, tools included.

        Raises:
            InferenceError: the upstream refuses, or answers something else.
        """
        resource = paths.resource(batch.model, self._options)
        wrapped = None if self._options.is_vertex else resource
        rules = model_of(batch.model).rules
        body = encode_count(batch, model=wrapped, rules=rules)
        path = paths.path(batch.model, paths.COUNT, self._options)
        tokens = decode_count(
            await self._ask(path, body, client_headers=batch.client_headers)
        )
        if tokens is None:
            raise _not_understood("a number of tokens")
        return tokens

    async def _ask(
        self, path: str, body: bytes, *, client_headers: Mapping[str, str] = NO_HEADERS
    ) -> bytes:
        """Return the body of an answer that comes whole, and is no error."""
        first_by = trio.current_time() + self._timeouts.first_token_s
        self._active += 1
        try:
            async with self._exchanges.post(
                path, body, first_by=first_by, client_headers=client_headers
            ) as answer:
                late = first_token_timeout(self._timeouts)
                with without_secret(answer.secret), within(first_by, late):
                    is_streamed(answer.response, asked=False)
                    body = await answer.response.read()
                problem = parse_error(body)
                if problem is not None:
                    raise classify(problem, secret=answer.secret)
                return body
        finally:
            self._active -= 1

    async def failed(self) -> InferenceError:
        """Wait for ever: a client of a remote API has nothing that can break."""
        await trio.sleep_forever()

    def _encoded(self, batch: ExecuteBatch) -> bytes:
        rules = model_of(batch.model).rules
        encoded = encode_request(batch, rules=rules, defaults=self._defaults)
        for warning in encoded.warnings:
            _log.info("request %s: %s", batch.request_id, warning)
        return encoded.body

    def _passed_on(self, body: bytes) -> bytes:
        """Return the client's bytes, with the deployment's members where absent."""
        missing = absent_members(body, self._defaults)
        return with_members(body, missing) if missing else body


def _not_understood(wanted: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"the upstream's answer is not {wanted}", code="malformed_body"
    )


def _new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"
