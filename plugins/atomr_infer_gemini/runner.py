"""Runs generations on the Gemini API, embeds texts and counts prompts.

A runner is one session: an HTTP client and the keys; see
``atomr_infer.remote.provider``.
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
from atomr_infer.model.embeddings import Embeddings
from atomr_infer.model.usage import Usage
from atomr_infer.remote.credentials.keys import NoKey
from atomr_infer.remote.upstream import Upstream, open_upstream
from atomr_infer.runtimes.credentials import NO_HEADERS
from atomr_infer.wire.gemini.counting import decode_count
from atomr_infer.wire.gemini.embeddings import decode_embed, encode_embed, texts_of
from atomr_infer.wire.gemini.signature_memory import SignatureMemory
from atomr_infer.wire.gemini.upstream import encode_count
from atomr_infer.wire.wrong_place import Place
from atomr_infer_gemini import paths
from atomr_infer_gemini.config import GeminiOptions, parse_options
from atomr_infer_gemini.faults import fault
from atomr_infer_gemini.models import ANY_MODEL, capabilities_of, model_of
from atomr_infer_gemini.requests import make_request, show_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.model.batch import ExecuteBatch, RawChunk, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.embeddings import EmbedRequest, Vector
    from atomr_infer.remote.http.dialing.tcp import Connect
    from atomr_infer.remote.key_check import KeyCheck
    from atomr_infer.remote.provider import ProviderClient
    from atomr_infer.runtimes.credentials import Credentials


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
    upstream = Upstream(
        endpoint=options.endpoint,
        http2=options.http2,
        show_key=partial(show_key, is_vertex=options.is_vertex),
        fault=partial(fault, place=_place_of(deployment, options)),
        models_path=paths.models(options),
        is_own=options.needs_credential,
    )
    opened = open_upstream(upstream, deployment, credentials, connect=connect)
    async with opened as (client, check):
        yield GeminiRunner(client, options=options, check=check)


def _place_of(deployment: Deployment, options: GeminiOptions) -> Place:
    """Return who is asked, for the error when it is something else."""
    return Place(
        deployment=deployment.name,
        endpoint=options.endpoint,
        runtime="gemini",
        api="the Gemini API",
    )


class GeminiRunner:
    """One client of the Gemini API; see ``ModelRunner`` for the contract."""

    def __init__(
        self, client: ProviderClient, *, options: GeminiOptions, check: KeyCheck
    ) -> None:
        self._client = client
        self._options = options
        self.check_key = check.check_key
        self._memory = SignatureMemory()

    def __repr__(self) -> str:
        return f"<GeminiRunner {self._client!r}>"

    @property
    def capabilities(self) -> Capabilities:
        """What some model behind the API can do."""
        return ANY_MODEL

    def capabilities_for(self, model: str) -> Capabilities:
        """Return what one model can do."""
        return capabilities_of(model)

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
        request = make_request(batch, self._options, memory=self._memory)
        return self._client.generation(batch, request)

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
            answer = await self._client.ask(path, body, client_headers=NO_HEADERS)
            found = decode_embed(answer, some)
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
        answer = await self._client.ask(path, body, client_headers=batch.client_headers)
        tokens = decode_count(answer)
        if tokens is None:
            raise _not_understood("a number of tokens")
        return tokens

    async def failed(self) -> InferenceError:
        """Wait for ever: a client of a remote API has nothing that can break."""
        await trio.sleep_forever()


def _not_understood(wanted: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        f"the upstream's answer is not {wanted}", code="malformed_body"
    )
