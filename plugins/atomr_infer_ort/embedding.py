"""Embedding models: texts to vectors, batched by length.

Requests are taken apart into texts, and texts of about the same length are run
together, whoever asked for them: a run costs what its longest text costs, times
their number.  The text that has waited longest is always in the next run.

A run happens in a worker thread, one at a time; between runs everything belongs
to the event loop.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import trio

from atomr_infer.errors import (
    ContextLengthError,
    EndpointUnsupportedError,
    EngineCrashedError,
    EngineStartError,
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
from atomr_infer_ort.faults import step_error
from atomr_infer_ort.options import Normalize, Pooling
from atomr_infer_ort.ranking import KNOWN, padded, positions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.errors import ErrorRecord
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer_ort.classifying import ClassifyingModel
    from atomr_infer_ort.layout import Layout
    from atomr_infer_ort.options import Options
    from atomr_infer_ort.ranking import RankingModel
    from atomr_infer_ort.session import Session
    from atomr_infer_ort.tokens import ModelTokenizer

Array = np.ndarray[Any, np.dtype[Any]]

MAX_CONCURRENCY = 256
"""Requests whose texts are batched together; they cost little while they wait."""

_DOES = {
    Feature.EMBEDDINGS: "makes embeddings",
    Feature.RERANK: "ranks documents",
    Feature.CLASSIFY: "classifies texts",
}

_HIDDEN = ("last_hidden_state", "token_embeddings")
_POOLED = ("sentence_embedding",)


def pooling_of(options: Options, layout: Layout) -> tuple[Pooling, bool]:
    """Return how vectors are made, and whether they are normalized."""
    pooling = options.pooling
    if pooling is Pooling.AUTO:
        pooling = Pooling.MEAN
        if layout.pooling.get("pooling_mode_cls_token"):
            pooling = Pooling.CLS
        elif layout.pooling.get("pooling_mode_lasttoken"):
            pooling = Pooling.LAST
    if options.normalize is Normalize.AUTO:
        return pooling, layout.normalizes
    return pooling, options.normalize is Normalize.YES


class EmbeddingModel:
    """A session with what is known of its inputs and outputs.

    Raises:
        EngineStartError: it is no model that makes vectors of texts.
    """

    feature = Feature.EMBEDDINGS
    labels: tuple[str, ...] = ()

    def __init__(self, session: Session, *, pooling: Pooling, normalize: bool) -> None:
        self._session = session
        self._inputs = {one.name for one in session.get_inputs()}
        self._pooling = pooling
        self._normalize = normalize
        outputs = [one.name for one in session.get_outputs()]
        found = [name for name in (*_POOLED, *_HIDDEN) if name in outputs]
        if not found or not {"input_ids"} <= self._inputs <= KNOWN:
            raise EngineStartError(
                "the model is neither a causal language model nor one that makes "
                f"embeddings: its inputs are {', '.join(sorted(self._inputs))}, its "
                f"outputs {', '.join(outputs)}"
            )
        self._output = found[0]

    def run(self, texts: Sequence[Sequence[int]]) -> Array:
        """Return a vector for each text, given as tokens.

        Raises:
            Exception: as ONNX Runtime raises it.
        """
        ids, mask = padded(texts)
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": positions(ids),
        }
        feeds = {name: feeds[name] for name in feeds if name in self._inputs}
        [made] = self._session.run([self._output], feeds)
        vectors = made if made.ndim == 2 else self._pool(made, mask)
        vectors = vectors.astype(np.float32, copy=False)
        if self._normalize:
            length = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(length, 1e-12)
        return vectors

    def _pool(self, hidden: Array, mask: Array) -> Array:
        vectors: Array
        match self._pooling:
            case Pooling.CLS:
                vectors = hidden[:, 0]
            case Pooling.LAST:
                vectors = hidden[np.arange(len(hidden)), mask.sum(axis=1) - 1]
            case _:
                weights = mask[:, :, None].astype(hidden.dtype)
                vectors = (hidden * weights).sum(axis=1) / weights.sum(axis=1)
        return vectors


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


class EmbedRunner:
    """A :class:`~atomr_infer.runtimes.contract.Embedder` on ONNX Runtime."""

    def __init__(
        self,
        model: EmbeddingModel | RankingModel | ClassifyingModel,
        tokenizer: ModelTokenizer,
        *,
        context_tokens: int,
        batch_tokens: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._batch_tokens = batch_tokens
        self._waiting: list[_Text] = []
        self._work = trio.Event()
        self._turn = trio.CapacityLimiter(1)
        self._crash: EngineCrashedError | None = None
        self._crashed = trio.Event()
        self._closed = False
        self.runs = 0
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
            f"the model {batch.model!r} {_DOES[self._model.feature]}; it does not "
            "write text",
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
            raise EngineCrashedError(self._crash.message)
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
        if _asked_for(request) is not self._model.feature:
            does = _DOES[self._model.feature]
            raise EndpointUnsupportedError(
                f"the model {request.model!r} {does}; it does nothing else",
                code="unsupported",
                param="model",
            )
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
                f"{self._context_tokens}",
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
            self._fail(texts, step_error(error))
            return
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
            self._crash = EngineCrashedError(error.message)
            self._crashed.set()


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
