"""Runs generations on OpenAI or a server that speaks its dialect.

A runner is one session: an HTTP client and the keys.  What it sends is made by
``requests``; how it is sent, by ``atomr_infer.remote.provider``.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import (
    InferenceError,
    UpstreamAuthError,
    UpstreamProtocolError,
)
from atomr_infer.remote.credentials.keys import NoKey
from atomr_infer.remote.passage import begin_passage
from atomr_infer.remote.provider import key_header
from atomr_infer.remote.upstream import Upstream, open_upstream
from atomr_infer.wire.openai.embeddings import decode_embeddings, encode_embed_request
from atomr_infer.wire.wrong_place import Place
from atomr_infer_openai.config import OpenAIOptions, parse_options
from atomr_infer_openai.faults import fault
from atomr_infer_openai.models import capabilities_of
from atomr_infer_openai.requests import (
    EMBEDDINGS,
    make_request,
    models_path,
    passed_request,
    path_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.embeddings import Embeddings, EmbedRequest
    from atomr_infer.model.secret import Secret
    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.remote.http.headers import Headers
    from atomr_infer.remote.key_check import KeyCheck
    from atomr_infer.remote.passage import Passage
    from atomr_infer.remote.provider import ProviderClient
    from atomr_infer.runtimes.credentials import Credentials


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
    upstream = Upstream(
        endpoint=options.endpoint,
        headers=options.all_headers,
        http2=options.http2,
        show_key=partial(show_key, options.key_header),
        fault=partial(fault, place=place_of(deployment, options)),
        models_path=models_path(options),
        is_own=options.is_openai,
    )
    opened = open_upstream(upstream, deployment, credentials, connect=connect)
    async with opened as (client, check):
        yield OpenAIRunner(
            client, options=options, model=deployment.model or "", check=check
        )


def place_of(deployment: Deployment, options: OpenAIOptions) -> Place:
    """Return who is asked, for the error when it is something else."""
    return Place(
        deployment=deployment.name,
        endpoint=options.endpoint,
        runtime="openai",
        api="an OpenAI-like API",
        versioned=options.azure_api_version is None,
    )


def show_key(name: str, secret: Secret) -> Headers:
    """Return the header of that name that shows a key.

    Raises:
        UpstreamAuthError: the key holds what no header can carry.
    """
    key = secret.reveal()
    return key_header(name, f"Bearer {key}" if name == "authorization" else key)


class OpenAIRunner:
    """One client of an OpenAI-like server; see ``ModelRunner`` for the contract."""

    def __init__(
        self,
        client: ProviderClient,
        *,
        options: OpenAIOptions,
        model: str,
        check: KeyCheck,
    ) -> None:
        self._client = client
        self._options = options
        self._model = model
        self.check_key = check.check_key

    def __repr__(self) -> str:
        return f"<OpenAIRunner {self._client!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """What the deployment's model can do."""
        return self.capabilities_for(self._model)

    def capabilities_for(self, model: str) -> Capabilities:
        """Return what one model can do; see ``atomr_infer_openai.models``."""
        return capabilities_of(model, self._options)

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
        return self._client.generation(batch, make_request(batch, self._options))

    def passage(
        self, batch: ExecuteBatch, *, total_at: float
    ) -> Passage[TokenChunk | RawChunk] | None:
        """Return the shorter way for a request; see ``PassesOn``."""
        request = passed_request(batch, self._options)
        if request is None:
            return None
        return begin_passage(self._client, batch, request, total_at=total_at)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each input, in order.

        Raises:
            InferenceError: it failed.

        Cancellation: closes the connection.
        """
        body = await self._client.ask(
            path_of(EMBEDDINGS, request.model, self._options),
            encode_embed_request(request),
            client_headers={},
        )
        found = decode_embeddings(body, request)
        if found is None:
            raise UpstreamProtocolError(
                "the upstream's body does not hold one vector for each input",
                code="malformed_body",
            )
        return found

    async def failed(self) -> InferenceError:
        """Wait for ever: a client of a remote API has nothing that can break."""
        await trio.sleep_forever()
