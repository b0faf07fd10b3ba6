"""The runner: one loaded model, several generations.

What mistral.rs 0.9.5 needs, and was measured to need:

- Requests sent from two threads at once fail ("Already borrowed"); a lock
  around sending, not around iterating, cures it.
- On a CPU, quantized weights, two prompts of equal length that are prefilled
  together fail both ("input tensor is not contiguous").  So a prompt is sent
  only when the one before it has given its first token; decoding together is
  sound, and gives each stream the same text as alone.
- A prefill cannot be interrupted.  Leaving a generation in its prefill waits
  for its end, but not for long; see :data:`DRAIN_S`.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import trio

from atomr_infer.errors import EngineCrashedError, decode, encode
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.runtimes.decoding.calls import with_calls
from atomr_infer.runtimes.decoding.tools import (
    forced_of,
    format_of,
    naming_tools,
    without_stops,
)
from atomr_infer_mistralrs.figures import Tally
from atomr_infer_mistralrs.generation import Generation
from atomr_infer_mistralrs.translate import (
    MEMBERS,
    SAMPLING,
    EngineChunk,
    request_arguments,
)

if TYPE_CHECKING:
    import mistralrs

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.figures import Figure

DRAIN_S = 5.0
"""How long leaving a generation waits for a prefill to end, in seconds.  Past
that, the prefill ends by itself and its generation with it; until then it counts
as active and no other prompt is started.  Below the bridge's ``cancel_s``, or a
client who leaves during a long prompt would cost everyone the engine."""


FEATURES = frozenset(
    {
        Feature.CHAT,
        Feature.LOGPROBS,
        Feature.JSON_OBJECT,
        Feature.STRUCTURED_OUTPUT,
        Feature.TOOLS,
        Feature.PARALLEL_TOOLS,
    }
)
"""A bare prompt is no feature: the engine puts one into the chat template, and its
other kind of request cannot be streamed."""


class MistralRsRunner:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` on mistral.rs."""

    def __init__(
        self, engine: mistralrs.Runner, *, context_tokens: int, max_seqs: int
    ) -> None:
        self._engine = engine
        self._context_tokens = context_tokens
        self._send_lock = threading.Lock()
        self._prefill = trio.Semaphore(1)
        self._generations: set[Generation] = set()
        self._tally = Tally()
        self._crash: EngineCrashedError | None = None
        self._crashed = trio.Event()
        self.capabilities = Capabilities(
            features=FEATURES,
            sampling=SAMPLING,
            members=MEMBERS,
            max_concurrency=max_seqs,
            context_tokens=context_tokens,
        )

    @property
    def active(self) -> int:
        """Generations in the engine, prefills that nobody waits for included."""
        return len(self._generations)

    async def figures(self) -> tuple[Figure, ...]:
        """Return how the engine stands, as it is seen from here."""
        return self._tally.figures(
            running=len(self._generations),
            waiting=self._prefill.statistics().tasks_waiting,
        )

    async def failed(self) -> InferenceError:
        """Return when the engine has panicked.

        What else can break this engine takes its process with it.
        """
        await self._crashed.wait()
        assert self._crash is not None
        return self._crash

    @asynccontextmanager
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Run one generation.

        Raises:
            UnsupportedFeatureError: on entry: parts that are not text.
            InvalidRequestError: on entry: a value is not allowed, or its schema may
                take long.
            ContextLengthError: from the iteration: the prompt is too long.
            InvalidRequestError: from the iteration: the engine or the chat
                template refuses the request.
            EngineError: from the iteration: the engine failed.
            EngineCrashedError: on entry or from the iteration: it has panicked.

        Cancellation: entering waits for earlier prompts, and can be cancelled.
            Leaving waits, shielded, for the end of the current token, or
            :data:`DRAIN_S` for the end of a prefill.
        """
        forced = forced_of(batch)
        batch = without_stops(batch, forced)
        form = batch.response_format if forced is None else format_of(forced)
        with naming_tools(forced):
            arguments = request_arguments(batch, self._context_tokens, form)
        await self._prefill.acquire()
        # While it waited, a prompt before it may have been the engine's end.
        if self._crash is not None:
            self._prefill.release()
            raise decode(encode(self._crash))
        generation = self._start(arguments)
        try:
            yield with_calls(generation, batch, forced)
        finally:
            generation.leave()
            with trio.move_on_after(DRAIN_S, shield=True):
                await generation.ended.wait()

    def _start(self, arguments: dict[str, Any]) -> Generation:
        generation = Generation(
            counting=self._tally.answer(),
            on_prefilled=self._prefill.release,
            on_ended=self._note_ended,
        )
        self._generations.add(generation)
        generation.start(lambda: self._send(arguments))
        return generation

    def _note_ended(self, generation: Generation) -> None:
        self._generations.discard(generation)
        if isinstance(generation.error, EngineCrashedError):
            self._crash = generation.error
            self._crashed.set()

    def _send(self, arguments: dict[str, Any]) -> Iterator[EngineChunk]:
        # Listing runtimes must not load the engine, so it is imported late.
        import mistralrs  # noqa: PLC0415

        request = mistralrs.ChatCompletionRequest(**arguments)
        with self._send_lock:
            chunks = self._engine.send_chat_completion_request(request)
        return cast(Iterator[EngineChunk], chunks)
