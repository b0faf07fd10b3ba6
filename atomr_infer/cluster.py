"""`Cluster`: the facade that programs use.

::

    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(Deployment(name="tiny", runtime="mistralrs", ...))
        reply = await cluster.chat("tiny", "Why is the sky blue?")
        async with cluster.stream("tiny", "Tell me a story.") as chunks:
            async for chunk in chunks:
                print(chunk.text, end="")

Everything that a cluster starts belongs to the ``async with`` block: leaving
it ends the requests, the gateways and the engines, in this order.

Importing this module loads no web server; :meth:`Cluster.serve` does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

import attrs
import trio

from atomr_infer.errors import ConfigError
from atomr_infer.model.batch import (
    ExecuteBatch,
    FinishReason,
    Message,
    Role,
    Sampling,
    TokenChunk,
    Usage,
)
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.request import Served, run_request

if TYPE_CHECKING:
    from atomr_infer.gateway.gateway import Gateway
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.application import Readiness, Serving
    from atomr_infer.serving.replica import ReplicaState

Conversation: TypeAlias = str | Iterable[Message | Mapping[str, str]]
"""A prompt, or messages: values, or mappings with ``role`` and ``content``."""

_SCHEME = "inproc://"


class SamplingOptions(TypedDict, total=False):
    """The fields of :class:`~atomr_infer.model.batch.Sampling` as keywords."""

    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]
    seed: int
    presence_penalty: float
    frequency_penalty: float


@attrs.frozen(kw_only=True)
class ChatReply:
    """A whole answer.

    Attributes:
        text: what the model said.
        finish_reason: why it ended.
        usage: tokens; None when the runtime did not say.
        deployment: who answered.
        attempts: tries that it took.
    """

    text: str
    finish_reason: FinishReason | None
    usage: Usage | None
    deployment: str
    attempts: int


class Cluster:
    """Deployments, and requests to them, in this process."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._gateways: list[Gateway] = []

    @staticmethod
    @asynccontextmanager
    async def connect(
        address: str, *, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[Cluster]:
        """Open the cluster at ``address`` for the length of the block.

        Args:
            address: ``inproc://NAME``: a cluster of this process alone.
            environ: where credentials are looked up; None: ``os.environ``.

        Raises:
            ConfigError: the address is of another kind.
        """
        if not address.startswith(_SCHEME) or address == _SCHEME:
            raise ConfigError(f"cannot connect to {address!r}; use {_SCHEME}NAME")
        async with open_serving(environ=environ) as serving:
            cluster = Cluster(serving)
            try:
                yield cluster
            finally:
                with trio.CancelScope(shield=True):
                    for gateway in cluster._gateways:
                        await gateway.drain(0)

    async def deploy(
        self,
        deployment: Deployment,
        *,
        progress: Callable[[ReplicaState], None] | None = None,
    ) -> None:
        """Start serving a deployment, and wait until it serves.

        Args:
            deployment: what to serve.
            progress: called about ten times a second while it loads.

        Raises:
            ConfigError: it cannot work as written.
            InferenceError: it could not be started.
        """
        await self._serving.deploy(deployment, progress=progress)

    async def undeploy(self, name: str) -> bool:
        """Stop serving a deployment; False when there is none of that name."""
        return await self._serving.undeploy(name)

    def models(self) -> tuple[str, ...]:
        """The public model names that are served, patterns included."""
        return self._serving.table.names()

    def readiness(self) -> Readiness:
        """Whether everything that was deployed serves."""
        return self._serving.readiness()

    async def replicas(self, deployment: str) -> tuple[ReplicaState, ...]:
        """The replicas of a deployment: phase, load, engine process."""
        return self._serving.replicas(deployment)

    async def chat(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> ChatReply:
        """Return the whole answer to a conversation.

        Raises:
            InferenceError: the request failed.

        Cancellation: ends the generation.
        """
        collected = _Collected()
        batch = _batch(model, conversation, sampling, stream=False)
        await run_request(self._serving, batch, collected)
        return collected.reply()

    @asynccontextmanager
    async def stream(
        self,
        model: str,
        conversation: Conversation,
        **sampling: Unpack[SamplingOptions],
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Give the answer's chunks as they are made.

        Leaving the block early ends the generation.

        Raises:
            InferenceError: from the iteration, when the request fails.
        """
        batch = _batch(model, conversation, sampling, stream=True)
        chunks = _Chunks()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chunks.run, self._serving, batch)
                yield chunks
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The nursery is an implementation detail: what the caller's block
            # raised must reach the caller as it was raised.
            if len(group.exceptions) > 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__

    async def serve(
        self,
        bind: str = "127.0.0.1:8080",
        *,
        max_body_bytes: int = 32 * 1024 * 1024,
        write_timeout_s: float = 60.0,
    ) -> Gateway:
        """Serve the deployments over HTTP, in the background.

        Args:
            bind: ``host:port``; port 0 takes a free one.
            max_body_bytes: the largest request body.
            write_timeout_s: a client that reads nothing for so long is dropped.

        Returns:
            The gateway; ``gateway.url`` is its address.

        Raises:
            ConfigError: the address cannot be bound.
        """
        # Here, so that a program that embeds no server does not load one.
        from atomr_infer.gateway.app import GatewayLimits  # noqa: PLC0415
        from atomr_infer.gateway.gateway import open_gateway  # noqa: PLC0415
        from atomr_infer.gateway.listener import Listener  # noqa: PLC0415

        host, _, port = bind.rpartition(":")
        listener = await Listener.bind(
            host.strip("[]"), int(port), write_timeout_s=write_timeout_s
        )
        limits = GatewayLimits(max_body_bytes=max_body_bytes)
        gateway = await open_gateway(self._serving, listener, limits)
        self._gateways.append(gateway)
        return gateway


class _Collected:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self._served: Served | None = None
        self._texts: list[str] = []
        self._finish: FinishReason | None = None
        self._usage: Usage | None = None

    async def begin(self, served: Served) -> None:
        self._served = served

    async def chunk(self, chunk: TokenChunk) -> None:
        self._texts.append(chunk.text)
        self._finish = chunk.finish_reason or self._finish
        self._usage = chunk.usage or self._usage

    def reply(self) -> ChatReply:
        assert self._served is not None, "a request that succeeds has begun"
        return ChatReply(
            text="".join(self._texts),
            finish_reason=self._finish,
            usage=self._usage,
            deployment=self._served.deployment,
            attempts=self._served.attempts,
        )


class _Chunks:
    """A sink on one side, an iterator on the other; nothing is buffered."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[TokenChunk](0)
        self._error: Exception | None = None

    async def run(self, serving: Serving, batch: ExecuteBatch) -> None:
        async with self._send:
            try:
                await run_request(serving, batch, self)
            except Exception as error:  # noqa: BLE001 - raised by __anext__
                self._error = error

    async def begin(self, served: Served) -> None:
        """Nothing to do: the reader sees chunks only."""

    async def chunk(self, chunk: TokenChunk) -> None:
        await self._send.send(chunk)

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> TokenChunk:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._error from self._error.__cause__
            raise StopAsyncIteration from None


def _batch(
    model: str, conversation: Conversation, sampling: SamplingOptions, *, stream: bool
) -> ExecuteBatch:
    return ExecuteBatch(
        request_id=os.urandom(12).hex(),
        model=model,
        messages=_messages(conversation),
        sampling=Sampling(**sampling),
        stream=stream,
    )


def _messages(conversation: Conversation) -> tuple[Message, ...]:
    if isinstance(conversation, str):
        return (Message(Role.USER, conversation),)
    messages = tuple(
        message
        if isinstance(message, Message)
        else Message(Role(message["role"]), message["content"])
        for message in conversation
    )
    if not messages:
        raise ValueError("the conversation is empty; give it at least one message")
    return messages
