"""The runner around a function or an object of the user's."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.actors.request import request_of
from atomr_infer.errors import (
    ContextLengthError,
    EndpointUnsupportedError,
    EngineCrashedError,
    InferenceError,
    InternalError,
    UnsupportedFeatureError,
    decode,
    encode,
)
from atomr_infer.model.embeddings import Embeddings
from atomr_infer.model.usage import Usage
from atomr_infer_python.calling import as_ours, pieces_of, result_of
from atomr_infer_python.figures import figures_of
from atomr_infer_python.telling import Telling, piece_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.capabilities import Capabilities
    from atomr_infer.model.embeddings import EmbedRequest
    from atomr_infer.model.figures import Figure
    from atomr_infer_python.abilities import Abilities
    from atomr_infer_python.calling import Function
    from atomr_infer_python.thread import PinnedThread

    Chunks = AsyncGenerator[TokenChunk, None]
    Pieces = AsyncGenerator[object, None]
    Counter = Callable[[str], int]


class PythonRunner:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` of the user's code.

    Args:
        who: what errors call it.
        abilities: its functions.
        thread: where those run that are not async.
    """

    def __init__(self, who: str, abilities: Abilities, thread: PinnedThread) -> None:
        self.active = 0
        self._who = who
        self._abilities = abilities
        self._thread = thread
        self._crash: EngineCrashedError | None = None
        self._crashed = trio.Event()

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._abilities.capabilities

    async def failed(self) -> InferenceError:
        """Return when the code has raised ``EngineCrashedError``."""
        await self._crashed.wait()
        assert self._crash is not None
        return self._crash

    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Chunks]:
        """Run one generation.

        Raises:
            UnsupportedFeatureError: it writes no text, or a message holds what is
                not text.
            ContextLengthError: the prompt is too long.
            EngineCrashedError: it can serve no more.
            InferenceError: from the iteration: the code raised.

        Cancellation: an async generator is cancelled where it waits; another one is
            closed behind the step that runs.
        """
        async with self._answering(batch, self._abilities.generate) as chunks:
            yield chunks

    @asynccontextmanager
    async def _answering(
        self, batch: ExecuteBatch, function: Function | None
    ) -> AsyncIterator[Chunks]:
        """Run one generation by a function."""
        self._check_well()
        self.active += 1
        try:
            async with aclosing(self._chunks(batch, function)) as chunks:
                yield chunks
        finally:
            self.active -= 1

    async def _chunks(self, batch: ExecuteBatch, function: Function | None) -> Chunks:
        if function is None:
            raise EndpointUnsupportedError(
                f"{self._who} makes vectors; it does not write text",
                code="unsupported",
                param="model",
            )
        request = request_of(batch)
        spoken = [message["content"] for message in request.messages]
        prompt_tokens = await self._count(" ".join(spoken), otherwise=_words)
        sampling = batch.sampling
        telling = Telling(
            sampling.stop,
            self._room(sampling.max_tokens, prompt_tokens),
            prompt_tokens=prompt_tokens,
            estimated=self._abilities.count_tokens is None,
        )
        pieces = pieces_of(function, request, thread=self._thread, who=self._who)
        async with aclosing(pieces) as steps:
            while not telling.over:
                chunk = await self._next(steps, telling)
                if chunk is not None:
                    yield chunk
        yield telling.usage

    def _room(self, asked: int | None, prompt_tokens: int) -> int | None:
        """Return the most tokens of an answer; None: there is no bound.

        Raises:
            ContextLengthError: there is no room for one.
        """
        context = self.capabilities.context_tokens
        if context is None:
            return asked
        if prompt_tokens >= context:
            raise ContextLengthError(
                f"the prompt has {prompt_tokens} tokens, and the model's context is "
                f"{context} with the answer",
                code="context_length_exceeded",
                param="messages",
            )
        room = context - prompt_tokens
        return room if asked is None else min(asked, room)

    async def _next(self, pieces: Pieces, telling: Telling) -> TokenChunk | None:
        # A pure function that yields at once must not starve the others.
        await trio.lowlevel.checkpoint()
        with self._noted(), as_ours(self._who):
            try:
                piece = piece_of(await anext(pieces), self._who)
            except StopAsyncIteration:
                return telling.end()
            text = piece if isinstance(piece, str) else getattr(piece, "text", "")
            tokens = await self._count(text, otherwise=_one) if text else 0
            return telling.take(piece, tokens)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return the vectors that the code makes of texts.

        Raises:
            EndpointUnsupportedError: it makes none.
            InternalError: they are no vectors, or not one for each text.
            InferenceError: the code raised.
        """
        self._check_well()
        if self._abilities.embed is None:
            raise self._unsupported("embeddings")
        texts = _texts(request)
        self.active += 1
        try:
            with self._noted(), as_ours(self._who):
                made = await result_of(
                    self._abilities.embed, texts, thread=self._thread
                )
                vectors = _vectors(made, len(texts), self._who)
            tokens = [await self._count(text, otherwise=_words) for text in texts]
        finally:
            self.active -= 1
        usage = Usage(
            input_uncached=sum(tokens), estimated=self._abilities.count_tokens is None
        )
        return Embeddings(vectors=vectors, usage=usage)

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Return the tokens of a prompt's texts, as the code counts them.

        Raises:
            EndpointUnsupportedError: it counts none.
            InferenceError: the code raised.
        """
        if self._abilities.count_tokens is None:
            raise self._unsupported("counting tokens")
        spoken = [message["content"] for message in request_of(batch).messages]
        return await self._count(" ".join(spoken), otherwise=_words)

    async def figures(self) -> tuple[Figure, ...]:
        """Return what the code tells of itself; nothing when it has no such method.

        Raises:
            InternalError: it tells what is no figure.
            InferenceError: the code raised.

        Cancellation: leaves a function in the thread alone.
        """
        if self._abilities.figures is None:
            return ()
        with self._noted(), as_ours(self._who):
            made = await result_of(
                self._abilities.figures, thread=self._thread, abandons=True
            )
            return figures_of(made, self._who)

    async def _count(self, text: str, *, otherwise: Counter) -> int:
        count = self._abilities.count_tokens
        if count is None:
            return otherwise(text)
        with self._noted(), as_ours(self._who):
            found = await result_of(count, text, thread=self._thread)
            # True is an int to Python, and breaks the wire of a child process.
            if isinstance(found, int) and not isinstance(found, bool):
                return found
            raise InternalError(
                f"count_tokens of {self._who} returns {type(found).__name__}, not int"
            )

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Note when the code says that it is of no use any more."""
        try:
            yield
        except EngineCrashedError as error:
            self._crash = error
            self._crashed.set()
            raise

    def _unsupported(self, what: str) -> EndpointUnsupportedError:
        return EndpointUnsupportedError(
            f"this model does not support {what}", code="unsupported", param="model"
        )

    def _check_well(self) -> None:
        if self._crash is not None:
            raise decode(encode(self._crash))


def _texts(request: EmbedRequest) -> list[str]:
    """Return what is to be embedded.

    Raises:
        UnsupportedFeatureError: it is no text, or other vectors are wanted than the
            code makes.
    """
    texts = [text for text in request.inputs if isinstance(text, str)]
    what = "inputs as tokens" if len(texts) < len(request.inputs) else None
    if request.dimensions is not None:
        what = "a choice of dimensions"
    if what is not None:
        param = "input" if request.dimensions is None else "dimensions"
        raise UnsupportedFeatureError(
            f"this model does not support {what}",
            code="unsupported_parameter",
            param=param,
        )
    return texts


def _words(text: str) -> int:
    return len(text.split())


def _one(_: str) -> int:
    return 1


def _vectors(made: object, count: int, who: str) -> tuple[tuple[float, ...], ...]:
    try:
        rows = tuple(
            tuple(float(number) for number in row)
            for row in made  # type: ignore[attr-defined] # TypeError when it is no row
        )
    except (TypeError, ValueError) as error:
        raise InternalError(
            f"embed of {who} returns {type(made).__name__}, not a list of vectors"
        ) from error
    if len(rows) != count or len({len(row) for row in rows}) > 1:
        raise InternalError(
            f"embed of {who} gives {len(rows)} vectors for {count} texts; it must give "
            "one for each, all of one length"
        )
    return rows
