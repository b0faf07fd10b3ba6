"""Runs generations on OpenAI or a server that speaks its dialect.

A runner is one session: an HTTP client and the keys.  A generation is one
exchange, so leaving the generation's block closes its connection, and the
upstream stops.  A key that is refused is replaced before the answer begins.

Time: ``first_token_s`` runs from the start of the attempt, connecting
included, to its first chunk; for an answer that is not streamed that is the
whole of it.  ``idle_s`` runs between chunks.  Comments that a proxy sends to
keep a connection open are no chunks, so a hung engine behind one is noticed.
"""

from __future__ import annotations

import math
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import (
    InferenceError,
    UpstreamAuthError,
)
from atomr_infer.model.capabilities import (
    ALL_SAMPLING,
    Capabilities,
    Feature,
    ThinkingStyle,
)
from atomr_infer.model.dialect import Dialect
from atomr_infer.remote.answer import (
    AnswerChunks,
    first_token_timeout,
    read_error_body,
    within,
)
from atomr_infer.remote.blot import without_secret
from atomr_infer.remote.credentials import NoKey
from atomr_infer.remote.headers import check_header
from atomr_infer.remote.http import HttpClient
from atomr_infer.remote.phases import HttpTimeouts
from atomr_infer.remote.session import Session, open_session
from atomr_infer.wire.openai.upstream_request import encode_request
from atomr_infer.wire.openai.upstream_stream import ChatAnswer
from atomr_infer_openai.config import OpenAIOptions, parse_options
from atomr_infer_openai.faults import fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.deployment import Deployment, Timeouts
    from atomr_infer.model.secret import Secret
    from atomr_infer.remote.response import HttpResponse
    from atomr_infer.remote.tcp import Connect
    from atomr_infer.runtimes.credentials import Credentials

_OK = 200

_CAPABILITIES = Capabilities(
    features=frozenset(Feature),
    sampling=ALL_SAMPLING,
    max_concurrency=256,
    thinking=ThinkingStyle.EFFORT,
    extra_of=frozenset({Dialect.OPENAI_CHAT}),
)


@asynccontextmanager
async def open_openai_runner(
    deployment: Deployment, credentials: Credentials, *, connect: Connect | None = None
) -> AsyncIterator[OpenAIRunner]:
    """Open a client for a deployment; no connection is made before it is used.

    Args:
        deployment: whose options and timeouts apply.
        credentials: hands out the API key of each request.
        connect: opens streams; None: TCP and TLS.

    Raises:
        ConfigError: an option is wrong.
        UpstreamAuthError: OpenAI itself, and no key.
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
        yield OpenAIRunner(
            session,
            options=options,
            timeouts=timeouts,
            replay=deployment.retry.idempotent,
        )


def _headers(options: OpenAIOptions) -> list[tuple[str, str]]:
    headers = [
        ("content-type", "application/json"),
        # A compressor holds back the small pieces that a stream is made of.
        ("accept-encoding", "identity"),
        *options.headers.items(),
    ]
    if "user-agent" not in options.headers:
        headers.append(("user-agent", "atomr-infer"))
    if options.organization is not None:
        headers.append(("openai-organization", options.organization))
    if options.project is not None:
        headers.append(("openai-project", options.project))
    return headers


def _key_header(secret: Secret | None) -> list[tuple[str, str]]:
    if secret is None:
        return []
    value = f"Bearer {secret.reveal()}"
    try:
        check_header("authorization", value)
    except ValueError as error:
        raise UpstreamAuthError(
            "the API key holds a character that no HTTP header can carry;"
            " look for a line end or a space in it"
        ) from error
    return [("authorization", value)]


class OpenAIRunner:
    """One client of an OpenAI-like server; see ``ModelRunner`` for the contract."""

    def __init__(
        self,
        session: Session[HttpClient],
        *,
        options: OpenAIOptions,
        timeouts: Timeouts,
        replay: bool,
    ) -> None:
        self._session = session
        self._max_tokens_member = options.max_tokens_member
        self._timeouts = timeouts
        self._replay = replay
        self._active = 0

    def __repr__(self) -> str:
        return f"<OpenAIRunner {self._session.client!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """Everything: what a model behind the API lacks, the API says itself."""
        return _CAPABILITIES

    @property
    def active(self) -> int:
        """Generations now on a connection."""
        return self._active

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Run one generation; the block's end is the generation's end.

        Raises:
            InferenceError: from entering the block or from the iteration.

        Cancellation: leaving the block before the last chunk closes the
            connection before the block's exit returns.
        """
        body = encode_request(batch, max_tokens_member=self._max_tokens_member)
        first_by = trio.current_time() + self._timeouts.first_token_s
        begin = partial(self._begin, batch, body, first_by)
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
        body: bytes,
        first_by: float,
        client: HttpClient,
        secret: Secret | None,
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        async with AsyncExitStack() as stack:
            with without_secret(secret):
                request = client.request(
                    "POST",
                    "/chat/completions",
                    headers=_key_header(secret),
                    body=body,
                    replay=self._replay,
                )
                with within(first_by, first_token_timeout(self._timeouts)):
                    response = await stack.enter_async_context(request)
                if response.status != _OK:
                    raise await _fault(response, secret)
                chunks = AnswerChunks(
                    batch,
                    response,
                    ChatAnswer(batch, secret=secret),
                    timeouts=self._timeouts,
                    first_by=first_by,
                    secret=secret,
                )
            yield chunks

    async def failed(self) -> InferenceError:
        """Wait for ever: a client of a remote API has nothing that can break."""
        await trio.sleep_forever()


async def _fault(response: HttpResponse, secret: Secret | None) -> InferenceError:
    body = await read_error_body(response)
    return fault(
        response.status,
        response.headers,
        body,
        now_epoch_s=time.time(),
        secret=secret,
    )
