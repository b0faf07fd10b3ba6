"""Texts that are read in runs, batched by length, whoever computes them.

Requests are taken apart into texts, and texts of about the same length are run
together, whoever asked for them: a run costs what its longest text costs, times
their number.  The text that has waited longest is always in the next run.

A run happens in a worker thread, one at a time; between runs everything belongs
to the event loop.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from atomr_infer.errors import (
    ContextLengthError,
    EndpointUnsupportedError,
    EngineCrashedError,
    InferenceError,
    InvalidRequestError,
    NotReadyError,
    UnsupportedFeatureError,
    decode,
    encode,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from atomr_infer.errors import ErrorRecord
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk

MAX_CONCURRENCY = 256
"""Requests whose texts are batched together; they cost little while they wait."""

DOES = {
    Feature.EMBEDDINGS: "makes embeddings",
    Feature.RERANK: "ranks documents",
    Feature.CLASSIFY: "classifies texts",
}
"""What a model that reads texts does with them, in words."""


class TextModel(Protocol):
    """A model that reads texts and says numbers of each.

    Attributes:
        feature: what it does with them.
        labels: names of the numbers; empty: they have none.
    """

    feature: Feature
    labels: tuple[str, ...]

    def run(self, texts: Sequence[Sequence[int]]) -> Any:  # noqa: ANN401  an array
        """Return a row of numbers for each text, given as tokens.

        Raises:
            Exception: as the engine raises it.
        """
        ...


class TextTokenizer(Protocol):
    """What is asked of the tokenizer of such a model; ``size``: how many tokens."""

    size: int

    def encode(
        self, text: str, *, with_special: bool, behind: str | None = None
    ) -> list[int]:
        """Return a text's tokens, or those of two that are read together.

        Raises:
            InvalidRequestError: the model cannot read it.
        """
        ...


@attrs.define(eq=False)
class _Text:
    """One text that waits for its vector."""

    tokens: list[int]
    request: _Pending
    vector: tuple[float, ...] | None = None


@attrs.define(eq=False)
class _Pending:
    """A request whose texts are not all done."""

    missing: int
    done: trio.Event = attrs.field(factory=trio.Event)
    error: InferenceError | None = None
    left: bool = False

    def end(self, error: ErrorRecord) -> None:
        self.error = decode(error)
        self.done.set()


class TextRunner:
    """A :class:`~atomr_infer.runtimes.contract.Embedder`, of a model that reads texts.

    Args:
        model: what is run.
        tokenizer: its own.
        told: says why a run failed; an ``EngineCrashedError``: there can be no other.
        context_tokens: most tokens of a text.
        batch_tokens: most tokens of a run, padding counted.
        bound: said behind ``context_tokens`` to who asks for more, where the model
            itself would read more.

    Attributes:
        runs: how many runs there were.
        steps: how many of them have ended.
        active: requests whose texts are not all done.
    """

    def __init__(
        self,
        model: TextModel,
        tokenizer: TextTokenizer,
        *,
        told: Callable[[Exception], InferenceError],
        context_tokens: int,
        batch_tokens: int,
        bound: str = "",
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._told = told
        self._context_tokens = context_tokens
        self._batch_tokens = batch_tokens
        self._bound = bound
        self._waiting: list[_Text] = []
        self._work = trio.Event()
        self._turn = trio.CapacityLimiter(1)
        self._crash: EngineCrashedError | None = None
        self._crashed = trio.Event()
        self._closed = False
        self.runs = 0
        self.steps = 0
        self.active = 0
        self.capabilities = Capabilities(
            features=frozenset({model.feature}),
            sampling=frozenset(),
            max_concurrency=MAX_CONCURRENCY,
            context_tokens=context_tokens,
        )

    # --- what is asked ----------------------------------------------------------

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Refuse: the model does not generate.

        Raises:
            EndpointUnsupportedError: always.
        """
        raise EndpointUnsupportedError(
            f"this model {DOES[self._model.feature]}; it does not write text",
            code="unsupported",
            param="model",
        )
        yield  # type: ignore[unreachable] # makes it a generator

    async def failed(self) -> InferenceError:
        """Return when a run of the model has failed."""
        await self._crashed.wait()
        assert self._crash is not None
        return self._crash

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each input.

        Raises:
            ContextLengthError: a text is too long; none is cut in silence.
            InvalidRequestError: a text is empty or holds no token of the model's.
            UnsupportedFeatureError: vectors of another length are asked for.
            EngineError: the engine failed.

        Cancellation: its texts are in no further run.
        """
        texts = await trio.to_thread.run_sync(self._tokens, request)
        if self._crash is not None:
            raise decode(encode(self._crash))
        vectors = await self._vectors(texts)
        size = len(vectors[0]) if vectors else 0
        if request.dimensions not in {None, size}:
            raise UnsupportedFeatureError(
                f"this model's vectors have {size} dimensions; dimensions is "
                f"{request.dimensions}",
                param="dimensions",
            )
        usage = Usage(input_uncached=sum(map(len, texts)))
        return Embeddings(vectors=vectors, usage=usage, labels=self._model.labels)

    def _tokens(self, request: EmbedRequest) -> list[list[int]]:
        refuse_other(self._model.feature, request)
        return [
            self._one(number, text, request.query)
            for number, text in enumerate(request.inputs)
        ]

    def _one(
        self, number: int, text: str | tuple[int, ...], query: str | None
    ) -> list[int]:
        where = f"input[{number}]" if query is None else f"documents[{number}]"
        if query is not None:
            words = str(text)
            tokens = self._tokenizer.encode(query, with_special=True, behind=words)
        elif isinstance(text, str):
            tokens = self._tokenizer.encode(text, with_special=True)
        else:
            tokens = list(text)
            if any(not 0 <= token < self._tokenizer.size for token in tokens):
                problem = f"{where} holds a token that the model does not have"
                raise InvalidRequestError(problem, param="input")
        if not tokens:
            raise InvalidRequestError(f"{where} is empty", param="input")
        if len(tokens) > self._context_tokens:
            raise ContextLengthError(
                f"{where} has {len(tokens)} tokens; the model reads "
                f"{self._context_tokens}{self._bound}",
                code="context_length_exceeded",
                param="input",
            )
        return tokens

    async def _vectors(self, texts: list[list[int]]) -> tuple[tuple[float, ...], ...]:
        if not texts:
            return ()
        if self._closed:
            raise NotReadyError("the engine is closed")
        pending = _Pending(len(texts))
        waiting = [_Text(tokens, pending) for tokens in texts]
        self._waiting += waiting
        self._work.set()
        self.active += 1
        try:
            await pending.done.wait()
        finally:
            self.active -= 1
            pending.left = True
        if pending.error is not None:
            raise pending.error
        return tuple(text.vector for text in waiting if text.vector is not None)

    # --- the runs ---------------------------------------------------------------

    async def run(self) -> None:
        """Run texts while there are any; wait while there are none.

        Cancellation: at the end of the current run.
        """
        try:
            while self._crash is None:
                self._waiting = [t for t in self._waiting if not t.request.left]
                if not self._waiting:
                    self._work = trio.Event()
                    await self._work.wait()
                    continue
                chosen = choose(self._waiting, self._batch_tokens)
                taken = set(map(id, chosen))
                self._waiting = [t for t in self._waiting if id(t) not in taken]
                await self._run(chosen)
        finally:
            self._closed = True
            closed = NotReadyError("the engine is closed")
            gone = encode(closed if self._crash is None else self._crash)
            for text in self._waiting:
                text.request.end(gone)

    async def _run(self, texts: list[_Text]) -> None:
        self.runs += 1
        try:
            vectors = await trio.to_thread.run_sync(
                self._model.run, [text.tokens for text in texts], limiter=self._turn
            )
        except trio.Cancelled:
            self._waiting += texts
            raise
        except Exception as error:  # noqa: BLE001  the engine's boundary: all of it is told
            self._fail(texts, self._told(error))
            return
        finally:
            self.steps += 1
        for text, vector in zip(texts, vectors.tolist(), strict=True):
            text.vector = tuple(vector)
            text.request.missing -= 1
            if not text.request.missing:
                text.request.done.set()

    def _fail(self, texts: list[_Text], error: InferenceError) -> None:
        for text in texts:
            text.request.end(encode(error))
            text.request.left = True
        if isinstance(error, EngineCrashedError):
            self._crash = EngineCrashedError(error.message, code=error.code)
            self._crashed.set()


def refuse_other(feature: Feature, request: EmbedRequest) -> None:
    """Refuse a request for something else than a model does with texts.

    Args:
        feature: what it does, one of :data:`DOES`.
        request: what is asked.

    Raises:
        EndpointUnsupportedError: it is asked for something else.
    """
    if _asked_for(request) is not feature:
        raise EndpointUnsupportedError(
            f"this model {DOES[feature]}; it does nothing else",
            code="unsupported",
            param="model",
        )


def _asked_for(request: EmbedRequest) -> Feature:
    if request.query is not None:
        return Feature.RERANK
    return Feature.CLASSIFY if request.classifies else Feature.EMBEDDINGS


def choose(waiting: Sequence[_Text], batch_tokens: int) -> list[_Text]:
    """Return the texts of the next run: the first, and those most like it in length.

    They have ``batch_tokens`` at most, padding counted, but for a first one that
    is longer alone.
    """
    first, *others = waiting
    length = len(first.tokens)
    chosen, width = [first], length
    for other in sorted(others, key=lambda text: abs(len(text.tokens) - length)):
        wider = max(width, len(other.tokens))
        if wider * (len(chosen) + 1) > batch_tokens:
            break
        chosen.append(other)
        width = wider
    return chosen
