"""Runs generations on Anthropic or a server that speaks its Messages API.

A generation is one exchange, so leaving the generation's block closes it, and
the upstream stops.  The API gives one answer to a request, so several are asked
for by as many exchanges at once.

Time: ``first_token_s`` runs from the start of the attempt, connecting
included, to its first chunk; for an answer that is not streamed that is the
whole of it.  ``idle_s`` runs between chunks.  A ``ping`` is no chunk, so a hung
engine behind one is noticed.
"""

from __future__ import annotations

import math
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import msgspec
import trio

from atomr_infer.errors import (
    InferenceError,
    InvalidRequestError,
    UpstreamAuthError,
    UpstreamProtocolError,
)
from atomr_infer.remote.answer import (
    AnswerChunks,
    first_token_timeout,
    read_error_body,
    within,
)
from atomr_infer.remote.blot import without_secret
from atomr_infer.remote.credentials import NoKey
from atomr_infer.remote.fan_out import fan_out
from atomr_infer.remote.headers import check_header
from atomr_infer.remote.http import HttpClient
from atomr_infer.remote.phases import HttpTimeouts
from atomr_infer.remote.session import Session, open_session
from atomr_infer_anthropic.config import AnthropicOptions, parse_options
from atomr_infer_anthropic.faults import fault
from atomr_infer_anthropic.models import capabilities_of
from atomr_infer_anthropic.requests import (
    COUNT_TOKENS,
    Ready,
    make_count,
    make_request,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.secret import Secret
    from atomr_infer.remote.response import HttpResponse
    from atomr_infer.remote.tcp import Connect
    from atomr_infer.runtimes.credentials import Credentials

_OK = 200


class _Count(msgspec.Struct):
    input_tokens: int


_decode_count = msgspec.json.Decoder(_Count).decode


@asynccontextmanager
async def open_anthropic_runner(
    deployment: Deployment, credentials: Credentials, *, connect: Connect | None = None
) -> AsyncIterator[AnthropicRunner]:
    """Open a client for a deployment; no connection is made before it is used.

    Args:
        deployment: whose options and timeouts apply.
        credentials: hands out the API key of each request.
        connect: opens streams; None: TCP and TLS.

    Raises:
        ConfigError: an option is wrong.
        UpstreamAuthError: Anthropic itself, and no key.
    """
    options = parse_options(deployment)
    if isinstance(credentials, NoKey) and options.needs_credential:
        raise UpstreamAuthError(f"no API key for {options.endpoint}")
    timeouts = deployment.timeouts

    def open_client() -> HttpClient:
        return HttpClient(
            options.endpoint,
            headers=_headers(options),
            timeouts=HttpTimeouts(
                connect_s=timeouts.connect_s,
                write_s=timeouts.first_token_s,
                head_s=timeouts.first_token_s,
                # Silence is measured between chunks, not between reads.
                idle_s=math.inf,
            ),
            connect=connect,
        )

    async with open_session(open_client, credentials) as session:
        yield AnthropicRunner(
            session,
            deployment=deployment,
            options=options,
        )


def _headers(options: AnthropicOptions) -> list[tuple[str, str]]:
    headers = [
        ("content-type", "application/json"),
        # A compressor holds back the small pieces that a stream is made of.
        ("accept-encoding", "identity"),
        *options.headers.items(),
    ]
    if "user-agent" not in options.headers:
        headers.append(("user-agent", "atomr-infer"))
    return headers


class AnthropicRunner:
    """One client of the Messages API; see ``ModelRunner`` for the contract."""

    def __init__(
        self,
        session: Session[HttpClient],
        *,
        deployment: Deployment,
        options: AnthropicOptions,
    ) -> None:
        self._session = session
        self._options = options
        self._timeouts = deployment.timeouts
        self._replay = deployment.retry.idempotent
        self._model = deployment.serves[0]
        self._active = 0

    def __repr__(self) -> str:
        return f"<AnthropicRunner {self._session.client!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """What the first model that is served can do.

        How much fits is each model's own: see :meth:`capabilities_for`.
        """
        return attrs.evolve(self.capabilities_for(self._model), context_tokens=None)

    def capabilities_for(self, model: str) -> Capabilities:
        """Return what a model can do; see ``atomr_infer_anthropic.models``."""
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
        if batch.sampling.n > 1:
            async with fan_out(batch, self._execute_one) as answers:
                yield answers
            return
        async with self._execute_one(batch) as chunks:
            yield chunks

    @asynccontextmanager
    async def _execute_one(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk | RawChunk]]:
        ready = make_request(batch, self._options)
        first_by = trio.current_time() + self._timeouts.first_token_s
        begin = partial(self._begin, batch, ready, first_by)
        self._active += 1
        try:
            async with self._session.attempt(
                begin, headers=batch.client_headers
            ) as chunks:
                yield chunks
        finally:
            self._active -= 1

    @asynccontextmanager
    async def _begin(
        self,
        batch: ExecuteBatch,
        ready: Ready,
        first_by: float,
        client: HttpClient,
        secret: Secret | None,
    ) -> AsyncIterator[AsyncIterator[TokenChunk | RawChunk]]:
        async with AsyncExitStack() as stack:
            with without_secret(secret):
                request = self._request(
                    client, ready.path, ready.headers, ready.body, secret
                )
                with within(first_by, first_token_timeout(self._timeouts)):
                    response = await stack.enter_async_context(request)
                if response.status != _OK:
                    raise await _fault(response, secret)
                chunks: AnswerChunks[TokenChunk | RawChunk] = AnswerChunks(
                    batch,
                    response,
                    ready.reader(secret),
                    timeouts=self._timeouts,
                    first_by=first_by,
                    secret=secret,
                    warnings=ready.warnings,
                )
            yield chunks

    def _request(
        self,
        client: HttpClient,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        secret: Secret | None,
    ) -> AbstractAsyncContextManager[HttpResponse]:
        key = _key_header(secret, self._options.auth)
        try:
            return client.request(
                "POST", path, headers=[*headers, *key], body=body, replay=self._replay
            )
        except ValueError as error:
            # Ours were checked when they were read; these are the client's.
            raise InvalidRequestError(str(error)) from error

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Return the tokens of a request's prompt, as the provider counts them.

        Raises:
            InferenceError: it failed.

        Cancellation: closes the connection.
        """
        body, headers = make_count(batch, self._options)
        by = trio.current_time() + self._timeouts.first_token_s

        @asynccontextmanager
        async def begin(
            client: HttpClient, secret: Secret | None
        ) -> AsyncIterator[int]:
            with (
                without_secret(secret),
                within(by, first_token_timeout(self._timeouts)),
            ):
                request = self._request(client, COUNT_TOKENS, headers, body, secret)
                async with request as response:
                    if response.status != _OK:
                        raise await _fault(response, secret)
                    count = _read_count(await response.read())
            yield count

        async with self._session.attempt(begin, headers=batch.client_headers) as count:
            return count

    async def failed(self) -> InferenceError:
        """Wait for ever: a client of a remote API has nothing that can break."""
        await trio.sleep_forever()


def _key_header(secret: Secret | None, auth: str) -> list[tuple[str, str]]:
    if secret is None:
        return []
    name, value = "x-api-key", secret.reveal()
    if auth == "bearer":
        name, value = "authorization", f"Bearer {value}"
    try:
        check_header(name, value)
    except ValueError as error:
        raise UpstreamAuthError(
            "the API key holds a character that no HTTP header can carry;"
            " look for a line end or a space in it"
        ) from error
    return [(name, value)]


def _read_count(body: bytes) -> int:
    try:
        return _decode_count(body).input_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamProtocolError(
            "the upstream's body is not a count of tokens", code="malformed_body"
        ) from error


async def _fault(response: HttpResponse, secret: Secret | None) -> InferenceError:
    body = await read_error_body(response)
    return fault(
        response.status,
        response.headers,
        body,
        now_epoch_s=time.time(),
        secret=secret,
    )
