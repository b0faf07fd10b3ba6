"""Runs generations on Anthropic or a server that speaks its Messages API.

A runner is one session: an HTTP client and the keys.  What it sends is made by
``requests``; how it is sent, by ``atomr_infer.remote.provider``.  The API gives
one answer to a request, so several are asked for by as many requests at once.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import attrs
import msgspec
import trio

from atomr_infer.errors import (
    InferenceError,
    UpstreamAuthError,
    UpstreamProtocolError,
)
from atomr_infer.remote.credentials.keys import NoKey
from atomr_infer.remote.fan_out import fan_out
from atomr_infer.remote.passage import begin_passage
from atomr_infer.remote.provider import key_header
from atomr_infer.remote.upstream import Upstream, open_upstream
from atomr_infer.wire.wrong_place import Place
from atomr_infer_anthropic.config import AnthropicOptions, parse_options
from atomr_infer_anthropic.faults import fault
from atomr_infer_anthropic.models import capabilities_of, fitted_traits
from atomr_infer_anthropic.requests import (
    COUNT_TOKENS,
    MODELS,
    headers_of_list,
    make_count,
    make_request,
    passed_request,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.secret import Secret
    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.remote.http.headers import Headers
    from atomr_infer.remote.key_check import KeyCheck
    from atomr_infer.remote.passage import Passage
    from atomr_infer.remote.provider import ProviderClient
    from atomr_infer.runtimes.credentials import Credentials


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
    upstream = Upstream(
        endpoint=options.endpoint,
        headers=options.headers,
        http2=options.http2,
        show_key=partial(show_key, options.auth),
        fault=partial(fault, place=_place_of(deployment, options)),
        models_path=MODELS,
        models_headers=headers_of_list(options),
        is_own=options.needs_credential,
    )
    opened = open_upstream(upstream, deployment, credentials, connect=connect)
    async with opened as (client, check):
        yield AnthropicRunner(
            client,
            options=options,
            model=deployment.model or deployment.serves[0],
            check=check,
        )


def _place_of(deployment: Deployment, options: AnthropicOptions) -> Place:
    """Return who is asked, for the error when it is something else."""
    return Place(
        deployment=deployment.name,
        endpoint=options.endpoint,
        runtime="anthropic",
        api="the Messages API",
    )


def show_key(auth: str, secret: Secret) -> Headers:
    """Return the header that shows a key.

    Args:
        auth: ``x-api-key`` or ``bearer``.
        secret: the key.

    Raises:
        UpstreamAuthError: the key holds what no header can carry.
    """
    key = secret.reveal()
    if auth == "bearer":
        return key_header("authorization", f"Bearer {key}")
    return key_header("x-api-key", key)


class AnthropicRunner:
    """One client of the Messages API; see ``ModelRunner`` for the contract."""

    def __init__(
        self,
        client: ProviderClient,
        *,
        options: AnthropicOptions,
        model: str,
        check: KeyCheck,
    ) -> None:
        self._client = client
        self._options = options
        self._model = model
        self.check_key = check.check_key

    def __repr__(self) -> str:
        return f"<AnthropicRunner {self._client!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """What the first model that is served can do.

        How much fits is each model's own: see :meth:`capabilities_for`.
        """
        return attrs.evolve(self.capabilities_for(self._model), context_tokens=None)

    def capabilities_for(self, model: str) -> Capabilities:
        """Return what a model can do; see ``atomr_infer_anthropic.models``."""
        return capabilities_of(fitted_traits(model, self._options))

    @property
    def active(self) -> int:
        """Requests now on a connection."""
        return self._client.active

    def execute(
        self, batch: ExecuteBatch
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk | RawChunk]]:
        """Run one generation; the block's end is the generation's end.

        Raises:
            InferenceError: from entering the block or from the iteration.

        Cancellation: leaving the block before the last chunk closes the
            connection before the block's exit returns.
        """
        if batch.sampling.n > 1:
            return fan_out(batch, self._execute_one)
        return self._execute_one(batch)

    def _execute_one(
        self, batch: ExecuteBatch
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk | RawChunk]]:
        return self._client.generation(batch, make_request(batch, self._options))

    def passage(
        self, batch: ExecuteBatch, *, total_at: float
    ) -> Passage[TokenChunk | RawChunk] | None:
        """Return the shorter way for a request; see ``PassesOn``."""
        request = passed_request(batch, self._options)
        if request is None:
            return None
        return begin_passage(self._client, batch, request, total_at=total_at)

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Return the tokens of a request's prompt, as the provider counts them.

        Raises:
            InferenceError: it failed.

        Cancellation: closes the connection.
        """
        body, headers = make_count(batch, self._options)
        answer = await self._client.ask(
            COUNT_TOKENS, body, headers=headers, client_headers=batch.client_headers
        )
        try:
            return _decode_count(answer).input_tokens
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UpstreamProtocolError(
                "the upstream's body is not a count of tokens", code="malformed_body"
            ) from error

    async def failed(self) -> InferenceError:
        """Wait for ever: a client of a remote API has nothing that can break."""
        await trio.sleep_forever()
