"""The runner of a causal language model."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import (
    ContextLengthError,
    InferenceError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer_ort.answer import Answer, Ends
from atomr_infer_ort.generation import Generation
from atomr_infer_ort.sampling import Sampler, Settings, settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer_ort.chat import ChatTemplate
    from atomr_infer_ort.engine import Engine
    from atomr_infer_ort.tokens import ModelTokenizer

SAMPLING = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "max_tokens",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "n",
        "top_logprobs",
    }
)


class Words:
    """How a model's requests become tokens, and its tokens text.

    Args:
        tokenizer: the model's.
        template: its chat template; None: it has none.
        ends: the tokens that end an answer.
        defaults: the sampling that its makers advise.
    """

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        template: ChatTemplate | None,
        ends: frozenset[int],
        defaults: Settings,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.ends = ends
        self.defaults = defaults

    def prompt(self, batch: ExecuteBatch) -> list[int]:
        """Return a request's prompt as tokens; blocks for long ones.

        Raises:
            UnsupportedFeatureError: it holds what is not text, or is a chat and
                the model has no template.
            InvalidRequestError: the template refuses it, or it is empty.
        """
        if batch.prompt is not None:
            tokens = self.tokenizer.encode(batch.prompt, with_special=True)
        elif self.template is None:
            raise UnsupportedFeatureError(
                "this model has no chat template; ask it for a completion",
                code="unsupported_parameter",
                param="messages",
            )
        else:
            # The template writes the special tokens itself.
            text = self.template.render(batch.messages)
            tokens = self.tokenizer.encode(text, with_special=False)
        if not tokens:
            raise InvalidRequestError("the prompt is empty", param="messages")
        return tokens


class OrtRunner:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` on ONNX Runtime."""

    def __init__(
        self, engine: Engine, words: Words, *, context_tokens: int, max_seqs: int
    ) -> None:
        self._engine = engine
        self._words = words
        self._context_tokens = context_tokens
        self._max_seqs = max_seqs
        chats = {Feature.CHAT} if words.template is not None else set()
        self.capabilities = Capabilities(
            features=frozenset(
                {Feature.COMPLETIONS, Feature.LOGPROBS, Feature.COUNT_TOKENS} | chats
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

    async def failed(self) -> InferenceError:
        """Return when a run of the model has failed."""
        await self._engine.crashed.wait()
        assert self._engine.crash is not None
        return self._engine.crash

    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Generation]:
        """Run one generation.

        Raises:
            UnsupportedFeatureError: on entry: parts that are not text, or more
                answers than the engine has rows.
            InvalidRequestError: on entry: the chat template refuses it, or a value
                is out of its range.
            ContextLengthError: on entry: the prompt is too long.
            EngineError: from the iteration: the engine failed.
            EngineCrashedError: on entry or from the iteration: it can serve no more.

        Cancellation: leaving waits, shielded, for the end of the current step.
        """
        prompt = await self._tokens(batch)
        generation = self._generation(batch, prompt)
        self._engine.submit(generation)
        try:
            yield generation
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

    def _generation(self, batch: ExecuteBatch, prompt: Sequence[int]) -> Generation:
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
        settings = settings_of(sampling, self._words.defaults)
        _check(settings, sampling.max_tokens)
        asked = sampling.max_tokens
        ends = Ends(
            tokens=self._words.ends,
            stops=sampling.stop,
            most=room if asked is None else min(asked, room),
        )
        given = sampling.seed
        seed = secrets.randbits(64) if given is None else given
        # A seed may be negative, and numpy's may not.
        seeds = (seed & (2**64 - 1), int(seed < 0))
        answers = [
            Answer(
                index,
                Sampler(settings, prompt, (*seeds, index)),
                ends,
                self._words.tokenizer,
            )
            for index in range(sampling.n)
        ]
        return Generation(prompt, answers, ends.most, self._engine.wake)


def _check(settings: Settings, max_tokens: int | None) -> None:
    """Refuse what the sampler cannot use.

    Raises:
        InvalidRequestError: names the value.
    """
    for name, value, is_allowed, allowed in (
        ("max_tokens", max_tokens, max_tokens is None or max_tokens >= 1, "at least 1"),
        ("temperature", settings.temperature, settings.temperature >= 0, "at least 0"),
        ("top_p", settings.top_p, 0 < settings.top_p <= 1, "above 0 and at most 1"),
        ("top_k", settings.top_k, settings.top_k >= 0, "at least 0"),
    ):
        if not is_allowed:
            raise InvalidRequestError(
                f"{name} is {value!r}; it must be {allowed}", param=name
            )
