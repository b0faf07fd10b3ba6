"""Who is asked: a name that somebody serves, with what it takes and gives.

A :class:`Ref` holds a name and nothing else of whom it names, so it stays good when
that one is restarted, moved to another node or replaced.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

import attrs

from atomr_infer.actors.definition import decorated
from atomr_infer.actors.forms import TEXT, Forms
from atomr_infer.model.batch import FinishReason
from atomr_infer.model.collected import Collected
from atomr_infer.model.conversation import request_of
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.model.tensors import InferRequest
from atomr_infer.model.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from atomr_infer.actors.context import Context
    from atomr_infer.actors.request import Request
    from atomr_infer.actors.shapes import Handles, HandlesAlone, Pieces, Tells
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.conversation import Conversation, SamplingOptions
    from atomr_infer.model.embeddings import Embeddings
    from atomr_infer.model.tensors import Inferred, Tensor

Q = TypeVar("Q")
R = TypeVar("R")
_Q_contra = TypeVar("_Q_contra", contravariant=True)
_R_co = TypeVar("_R_co", covariant=True)


class Caller(Protocol):
    """How deployments are asked: from a program, or from inside a request."""

    def new_id(self) -> str:
        """Return what the next request is known by."""
        ...

    def generate(
        self, batch: ExecuteBatch
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]:
        """Return a block with the chunks of an answer; its end ends the generation.

        Raises:
            InferenceError: from the iteration: it failed.
        """
        ...

    async def vectors(self, request: EmbedRequest) -> Embeddings:
        """Return the vectors of texts.

        Raises:
            InferenceError: it failed.
        """
        ...

    async def tensors(self, request: InferRequest) -> Inferred:
        """Return what a model makes of tensors.

        Raises:
            InferenceError: it failed, or the model takes no tensors like these.
        """
        ...


@attrs.frozen(kw_only=True)
class Reply:
    """A whole answer.

    Attributes:
        text: what was said.
        finish_reason: why it ended.
        usage: tokens; None: nobody has said.
    """

    text: str
    finish_reason: FinishReason | None
    usage: Usage | None


@attrs.frozen
class Ref(Generic[_Q_contra, _R_co]):
    """A deployment, a pipeline or an actor, by its name.

    Attributes:
        name: a model's name, as clients say it.
    """

    name: str
    _caller: Caller = attrs.field(repr=False)
    _forms: Forms[Any, _R_co] = attrs.field(repr=False)

    async def chat(
        self, conversation: Conversation, **sampling: Unpack[SamplingOptions]
    ) -> Reply:
        """Return the whole answer to a conversation.

        Raises:
            InferenceError: it failed.

        Cancellation: ends the generation.
        """
        return await self._whole(self._batch(conversation, sampling, stream=False))

    def stream(
        self, conversation: Conversation, **sampling: Unpack[SamplingOptions]
    ) -> AbstractAsyncContextManager[AsyncIterator[TokenChunk]]:
        """Return a block with the chunks of the answer, as they are made.

        Leaving it early ends the generation.

        Raises:
            InferenceError: from the iteration: it failed.
        """
        return self._caller.generate(self._batch(conversation, sampling, stream=True))

    async def embed(self, *texts: str, dimensions: int | None = None) -> Embeddings:
        """Return a vector for each text, in order.

        Raises:
            InferenceError: it failed.
            ValueError: there is no text.

        Cancellation: ends the request.
        """
        if not texts:
            raise ValueError(f"embed() of {self.name!r}: there is no text")
        request = EmbedRequest(
            request_id=self._caller.new_id(),
            model=self.name,
            inputs=texts,
            dimensions=dimensions,
        )
        return await self._caller.vectors(request)

    async def infer(self, *inputs: Tensor, outputs: Iterable[str] = ()) -> Inferred:
        """Return what a model makes of tensors: the named outputs, or all.

        Raises:
            InvalidRequestError: the model takes others; it says which.
            EndpointUnsupportedError: it takes no tensors.
            InferenceError: it failed.

        Cancellation: ends the request.
        """
        request = InferRequest(
            request_id=self._caller.new_id(),
            model=self.name,
            inputs=inputs,
            outputs=tuple(outputs),
        )
        return await self._caller.tensors(request)

    async def ask(self, request: object, timeout_s: float | None) -> _R_co:
        """Return the reply to a request; see :func:`ask`."""
        text = self._forms.asked(request)
        batch = self._batch(text, {}, stream=False)
        reply = await self._whole(attrs.evolve(batch, timeout_s=timeout_s))
        return self._forms.told(reply.text, self.name)

    def _batch(
        self, conversation: Conversation, sampling: SamplingOptions, *, stream: bool
    ) -> ExecuteBatch:
        request_id = self._caller.new_id()
        return request_of(
            self.name, conversation, sampling, stream=stream, request_id=request_id
        )

    async def _whole(self, batch: ExecuteBatch) -> Reply:
        told = Collected()
        async with self._caller.generate(batch) as chunks:
            async for chunk in chunks:
                told.add(chunk)
        choice = told.choice()
        return Reply(
            text=choice.text, finish_reason=choice.finish_reason, usage=told.usage
        )


@overload
async def ask(
    ref: Ref[Request, R], request: str, *, timeout_s: float | None = None
) -> R: ...
@overload
async def ask(ref: Ref[Q, R], request: Q, *, timeout_s: float | None = None) -> R: ...
async def ask(
    ref: Ref[Any, R], request: object, *, timeout_s: float | None = None
) -> R:
    """Ask an actor, and return its reply: what ``call`` is to a process.

    Args:
        ref: who is asked, as ``lookup`` returns it.
        request: a value of the type that it takes; of a model, a text.
        timeout_s: how long it may take in all, queue included; None: as long as its
            deployment allows.

    Raises:
        DeadlineError: it took longer; its work has ended.
        ModelNotFoundError: nobody serves the name (any more).
        InvalidRequestError: it refuses the request, as one that is not of its type.
        EngineError: its code raised something; the words are in it.
        InferenceError: what its code raised of these, or why it could not be asked.

    Cancellation: ends its work before this returns.
    """
    return await ref.ask(request, timeout_s)


class Lookups(ABC):
    """Who finds deployments by name."""

    @overload
    def lookup(self, name: str) -> Ref[str, str]: ...
    @overload
    def lookup(self, name: str, actor: Callable[..., Tells[Q]]) -> Ref[Q, str]: ...
    @overload
    def lookup(self, name: str, actor: Callable[..., Handles[Q, R]]) -> Ref[Q, R]: ...
    @overload
    def lookup(
        self, name: str, actor: Callable[..., HandlesAlone[Q, Awaitable[R]]]
    ) -> Ref[Q, R]: ...
    @overload
    def lookup(
        self, name: str, actor: Callable[..., HandlesAlone[Q, Pieces]]
    ) -> Ref[Q, str]: ...
    @overload
    def lookup(
        self, name: str, actor: Callable[..., HandlesAlone[Q, R]]
    ) -> Ref[Q, R]: ...
    @overload
    def lookup(
        self, name: str, actor: Callable[Concatenate[Context, Q, ...], Pieces]
    ) -> Ref[Q, str]: ...
    @overload
    def lookup(
        self, name: str, actor: Callable[Concatenate[Context, Q, ...], Awaitable[R]]
    ) -> Ref[Q, R]: ...
    def lookup(
        self, name: str, actor: Callable[..., object] | None = None
    ) -> Ref[Any, Any]:
        """Return a deployment, a pipeline or an actor, on whichever node it is.

        Args:
            name: a model's name, as clients say it.
            actor: the actor that is deployed under it, which says what it takes and
                gives; None: text, as of a model.

        Raises:
            ModelNotFoundError: nobody serves it.
            ConfigError: ``actor`` is none.
            InternalError: in an actor: it has not said that it asks for this name.
        """
        forms = TEXT if actor is None else decorated(actor).forms
        return Ref(name, self._caller_of(name), forms)

    @abstractmethod
    def _caller_of(self, name: str) -> Caller:
        """Return how who has that name is asked."""
