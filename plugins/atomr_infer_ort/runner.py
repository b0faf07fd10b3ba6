"""The runner of a causal language model."""

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

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.figures import Figure
    from atomr_infer.runtimes.decoding.generation import Generation
    from atomr_infer.runtimes.decoding.words import Words
    from atomr_infer_ort.engine import OrtEngine
    from atomr_infer_ort.schemas import Constraint, Schemas


class OrtRunner:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` on ONNX Runtime."""

    def __init__(
        self,
        engine: OrtEngine,
        words: Words,
        *,
        context_tokens: int,
        max_seqs: int,
        schemas: Schemas | None = None,
    ) -> None:
        self._schemas = schemas
        self._engine = engine
        self._words = words
        self._context_tokens = context_tokens
        self._max_seqs = max_seqs
        can = {Feature.COMPLETIONS, Feature.LOGPROBS, Feature.COUNT_TOKENS}
        if words.template is not None:
            can |= {Feature.CHAT}
        if schemas is not None and words.ends:  # or what is whole could not end
            can |= {Feature.JSON_OBJECT, Feature.STRUCTURED_OUTPUT}
            if words.calls_tools:
                can |= {Feature.TOOLS, Feature.PARALLEL_TOOLS}
        self.capabilities = Capabilities(
            features=frozenset(can),
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
                answers than the engine has rows.
            InvalidRequestError: on entry: the chat template refuses it, a value is
                out of its range, or a schema cannot be kept to.
            OverloadedError: on entry: too many schemas are being worked out.
            ContextLengthError: on entry: the prompt is too long.
            EngineError: from the iteration: the engine failed.
            EngineCrashedError: on entry or from the iteration: it can serve no more.

        Cancellation: leaving waits, shielded, for the end of the current step.
        """
        self._words.check_tools(batch)
        forced = forced_of(batch)
        prompt = await self._tokens(batch)
        batch = without_stops(batch, forced)
        form = batch.response_format if forced is None else format_of(forced)
        constraints = None
        if self._schemas is not None and form is not None:
            with naming_tools(forced):
                constraints = await self._schemas.worked_out(form)
        generation = self._generation(batch, prompt, constraints)
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
        return len(await self._tokens(batch))

    async def _tokens(self, batch: ExecuteBatch) -> list[int]:
        return await trio.to_thread.run_sync(self._words.prompt, batch)

    def _generation(
        self,
        batch: ExecuteBatch,
        prompt: Sequence[int],
        constraints: Callable[[], Constraint] | None,
    ) -> Generation:
        sampling = batch.sampling
        if sampling.n > self._max_seqs:
            raise UnsupportedFeatureError(
                f"this model gives at most {self._max_seqs} answers per request; n is "
                f"{sampling.n}",
                param="n",
            )
        # All answers have the prompt in the cache, each for itself.
        cached = self._engine.bounds.cache_tokens // sampling.n
        room = min(self._context_tokens, cached) - len(prompt)
        if room < 1:
            raise ContextLengthError(
                f"the prompt has {len(prompt)} tokens, and the model's context is "
                f"{len(prompt) + room} with the answer",
                code="context_length_exceeded",
                param="messages",
            )
        return self._words.begin(
            batch,
            prompt,
            room=room,
            wake=self._engine.wake,
            constraints=constraints,
        )
