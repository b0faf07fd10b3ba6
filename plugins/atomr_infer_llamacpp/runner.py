"""The runner of a GGUF on llama.cpp."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import (
    ContextLengthError,
    InferenceError,
    UnsupportedFeatureError,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.runtimes.decoding.calls import with_calls
from atomr_infer.runtimes.decoding.tools import (
    forced_of,
    format_of,
    naming_tools,
    without_stops,
)
from atomr_infer.runtimes.decoding.words import SAMPLING
from atomr_infer_llamacpp.grammar import grammars_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.figures import Figure
    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer.runtimes.decoding.tools import Forced
    from atomr_infer.runtimes.decoding.words import Words
    from atomr_infer_llamacpp.engine import LlamaEngine
    from atomr_infer_llamacpp.model import LlamaModel


class LlamaRunner:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` on llama.cpp."""

    def __init__(
        self, model: LlamaModel, engine: LlamaEngine, words: Words, context_tokens: int
    ) -> None:
        self._model = model
        self._engine = engine
        self._words = words
        self._context_tokens = context_tokens
        chats = {Feature.CHAT} if words.template is not None else set()
        if words.calls_tools:
            chats |= {Feature.TOOLS, Feature.PARALLEL_TOOLS}
        max_seqs = engine.bounds.max_seqs
        self.capabilities = Capabilities(
            features=frozenset(
                {
                    Feature.COMPLETIONS,
                    Feature.LOGPROBS,
                    Feature.COUNT_TOKENS,
                    Feature.JSON_OBJECT,
                    Feature.STRUCTURED_OUTPUT,
                }
                | chats
            ),
            sampling=SAMPLING,
            max_concurrency=max_seqs,
            context_tokens=context_tokens,
            max_n=max_seqs,
        )

    async def run(self) -> None:
        """Make the engine's steps until cancelled."""
        await self._engine.run()

    @property
    def active(self) -> int:
        """Generations in the engine, those that wait included."""
        return len(self._engine.generations)

    @property
    def steps(self) -> int:
        """Steps that the engine has made."""
        return self._engine.steps

    @property
    def sequences(self) -> int:
        """Sequences that are under way."""
        return self._engine.sequences

    @property
    def read_tokens(self) -> int:
        """Tokens that the engine has computed."""
        return self._engine.read_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens in the engine's cache; to be asked for while nothing runs."""
        return self._engine.cached_tokens

    async def figures(self) -> tuple[Figure, ...]:
        """Return how the engine stands."""
        return self._engine.figures()

    async def failed(self) -> InferenceError:
        """Return when a run of the model has failed."""
        await self._engine.crashed.wait()
        assert self._engine.crash is not None
        return self._engine.crash

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Run one generation.

        Raises:
            UnsupportedFeatureError: on entry: parts that are not text, or more
                answers than the engine has sequences.
            InvalidRequestError: on entry: the chat template refuses it, a value is
                out of its range, or its schema cannot be followed.
            ContextLengthError: on entry: the prompt is too long.
            EngineError: from the iteration: the engine failed.
            EngineCrashedError: on entry or from the iteration: it can serve no more.

        Cancellation: leaving waits, shielded, for the end of the current step; one
            that reads the generation's prompt is stopped.
        """
        self._words.check_tools(batch)
        forced = forced_of(batch)
        batch = without_stops(batch, forced)
        with naming_tools(forced):
            generation = await trio.to_thread.run_sync(self._generation, batch, forced)
        self._engine.submit(generation)
        try:
            yield with_calls(generation, batch, forced)
        finally:
            await generation.leave()

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Return the tokens of a request's prompt.

        Raises:
            InferenceError: it is no prompt of this model's.
        """
        return len(await trio.to_thread.run_sync(self._words.prompt, batch))

    def _generation(self, batch: ExecuteBatch, forced: Forced | None) -> Generation:
        n, most = batch.sampling.n, self._engine.bounds.max_seqs
        if n > most:
            # It would wait for sequences that there never are.
            raise UnsupportedFeatureError(
                f"this model gives at most {most} answers per request; n is {n}",
                param="n",
            )
        prompt = self._words.prompt(batch)
        # Each answer has room of its own, though they share the prompt's.
        cached = self._engine.bounds.cache_tokens // n
        most = min(self._context_tokens, cached)
        if len(prompt) >= most:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens, and the model's context is "
                f"{most} with the answer",
                code="context_length_exceeded",
                param="messages",
            )
        return self._words.begin(
            batch,
            prompt,
            room=most - len(prompt),
            wake=self._engine.wake,
            constraints=grammars_for(
                self._model,
                batch.response_format if forced is None else format_of(forced),
            ),
        )
