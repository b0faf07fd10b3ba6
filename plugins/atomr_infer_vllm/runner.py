"""The runner of a model that generates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from atomr_infer.errors import (
    EngineCrashedError,
    InferenceError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.capabilities import ALL_SAMPLING, Capabilities, Feature
from atomr_infer.model.dialect import Dialect
from atomr_infer.runtimes.decoding.tools import forced_of, refuse_undecided
from atomr_infer.runtimes.decoding.turns import tools_of, turns_of
from atomr_infer_vllm.answer import Answer
from atomr_infer_vllm.faults import first_line, to_inference_error
from atomr_infer_vllm.figures import Metric, figures_of
from atomr_infer_vllm.generation import Generation
from atomr_infer_vllm.parsing import StreamedCalls
from atomr_infer_vllm.sampling import Asked, asked_of
from atomr_infer_vllm.steps import Steps

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.figures import Figure
    from atomr_infer_vllm.loop import LoopThread

WATCH_EVERY_S = 0.2
"""How often the engine is asked whether its core has died: streams hear it by
themselves, and an idle engine has none."""


LOG_EVERY_S = 10.0
"""How often the engine writes its figures to the log, while it has work: tokens per
second, requests that run and that wait, how full the cache is."""


class Engine(Protocol):
    """What is used of vLLM's ``AsyncLLM``."""

    errored: bool

    def get_num_unfinished_requests(self) -> int:
        """How many requests it has, those that wait included."""
        ...

    def generate(
        self, prompt: object, sampling_params: object, request_id: str, **more: object
    ) -> AsyncGenerator[Any, None]:
        """Make an answer; cancelling the iteration drops it."""
        ...

    def encode(
        self, prompt: object, pooling_params: object, request_id: str, **more: object
    ) -> AsyncIterator[Any]:
        """Make a vector."""
        ...

    def do_log_stats(self) -> Coroutine[Any, Any, None]:
        """Log what was done since the last time."""
        ...

    def shutdown(self) -> None:
        """End its processes; blocks for seconds."""
        ...


@attrs.frozen(kw_only=True)
class Parts:
    """What of vLLM a runner is given, so that nothing here imports it.

    Attributes:
        tokenizer: the model's, of Hugging Face's.
        chat_template: its chat template; None: it has none.
        defaults: the sampling that its makers advise.
        sampling_params: makes vLLM's ``SamplingParams`` of its arguments, and of
            those of ``StructuredOutputsParams``.
        adapters: a ``LoRARequest`` by the model name that a client asks for.
        parser: makes a tool parser, and vLLM's form of the request, of tools.
    """

    tokenizer: Any
    chat_template: str | None
    defaults: Mapping[str, Any]
    sampling_params: Callable[[Mapping[str, Any], Mapping[str, Any]], object]
    adapters: Mapping[str, object]
    parser: Callable[[Sequence[Mapping[str, Any]]], tuple[object, object]] | None


class Watched:
    """The life of an engine, which is over when its core has died.

    Args:
        loop: the engine's.
        engine: its front.
        metrics: returns what it counts of itself.
        steps: counts the core's steps; None: nobody does.

    Attributes:
        active: requests in the engine.
        steps: as above.
    """

    def __init__(
        self,
        loop: LoopThread,
        engine: Engine,
        metrics: Callable[[], Iterable[Metric]] = tuple,
        steps: Steps | None = None,
    ) -> None:
        self.loop = loop
        self.engine = engine
        self._metrics = metrics
        self.steps = Steps() if steps is None else steps
        self.active = 0
        self._died = trio.Event()

    async def failed(self) -> InferenceError:
        """Return when the engine's core has died."""
        log_at = trio.current_time() + LOG_EVERY_S
        while not (self._died.is_set() or self.engine.errored):
            with trio.move_on_after(WATCH_EVERY_S):
                await self._died.wait()
            if trio.current_time() >= log_at:
                log_at += LOG_EVERY_S
                await self.loop.run(self.engine.do_log_stats)
        return EngineCrashedError("vLLM's engine core died; the log says why")

    async def figures(self) -> tuple[Figure, ...]:
        """Return what the engine counts of itself."""
        # Its metrics have locks that its own threads hold.
        return figures_of(await trio.to_thread.run_sync(self._metrics))

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request, and hear at once when it meets a dead engine.

        Who asks again must find the next engine, or wait for it, and not this one.

        Raises:
            EngineCrashedError: on entry: the engine's core has died.
        """
        if self.engine.errored:
            self._died.set()
            raise EngineCrashedError("vLLM's engine core died; the log says why")
        self.active += 1
        try:
            yield
        except EngineCrashedError:
            self._died.set()
            raise
        finally:
            self.active -= 1


class VllmRunner:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` on vLLM."""

    def __init__(
        self, life: Watched, parts: Parts, *, context_tokens: int, max_seqs: int
    ) -> None:
        self._life = life
        self._parts = parts
        self._context_tokens = context_tokens
        self._numbers = itertools.count()
        features = {
            Feature.COMPLETIONS,
            Feature.LOGPROBS,
            Feature.COUNT_TOKENS,
            Feature.JSON_OBJECT,
            Feature.STRUCTURED_OUTPUT,
        }
        if parts.chat_template is not None:
            features |= {Feature.CHAT, Feature.TOOLS, Feature.PARALLEL_TOOLS}
        self.capabilities = Capabilities(
            features=frozenset(features),
            sampling=ALL_SAMPLING,
            max_concurrency=max_seqs,
            context_tokens=context_tokens,
            extra_of=frozenset({Dialect.OPENAI_CHAT, Dialect.OPENAI_COMPLETIONS}),
            max_n=max_seqs,
        )

    @property
    def active(self) -> int:
        """Generations in the engine, those that wait included."""
        return self._life.active

    @property
    def steps(self) -> int:
        """Steps of the engine's core that made something."""
        return self._life.steps.made

    async def failed(self) -> InferenceError:
        """Return when the engine's core has died."""
        return await self._life.failed()

    async def figures(self) -> tuple[Figure, ...]:
        """Return what the engine counts of itself."""
        return await self._life.figures()

    @asynccontextmanager
    async def execute(self, batch: ExecuteBatch) -> AsyncIterator[Generation]:
        """Run one generation.

        Raises:
            UnsupportedFeatureError: on entry: parts that are not text, or tools that
                nothing would find in the answer.
            InvalidRequestError: on entry or from the iteration: the chat template or
                the engine refuses the request.
            ContextLengthError: on entry: the prompt is too long.
            EngineError: from the iteration: the engine failed.
            EngineCrashedError: on entry or from the iteration: its core has died.

        Cancellation: leaving waits, shielded, until the engine has been told to drop
            it.
        """
        with self._life.counted():
            prompt = await self._tokens(batch)
            generation = self._start(batch, prompt)
            try:
                yield generation
            finally:
                await generation.leave()

    def _start(self, batch: ExecuteBatch, prompt: list[int]) -> Generation:
        forced = forced_of(batch)
        asked = asked_of(
            batch,
            prompt_tokens=len(prompt),
            context_tokens=self._context_tokens,
            defaults=self._parts.defaults,
            forced=forced,
        )
        params = self._params(asked)
        answer = Answer(
            batch.request_id,
            len(prompt),
            top_logprobs=batch.sampling.top_logprobs or 0,
            forced=forced,
            parsers=() if forced else self._parsers(batch),
            warnings=asked.ignored,
        )
        engine, adapter = self._life.engine, self._parts.adapters.get(batch.model)
        # A request may be here twice: hedged, or made again.
        request_id = f"{batch.request_id}-{next(self._numbers)}"
        return Generation(
            self._life.loop,
            lambda: engine.generate(
                {"prompt_token_ids": prompt},
                params,
                request_id,
                lora_request=adapter,
            ),
            answer,
        )

    def _params(self, asked: Asked) -> object:
        try:
            return self._parts.sampling_params(asked.arguments, asked.structured)
        except (ValueError, TypeError) as error:
            raise InvalidRequestError(first_line(error)) from error
        except Exception as error:
            # vLLM checks the values, and has classes of its own for that.
            raise to_inference_error(error) from error

    def _parsers(self, batch: ExecuteBatch) -> Sequence[StreamedCalls]:
        tools = tools_of(batch)
        if not tools or self._parts.parser is None:
            return ()
        return [
            StreamedCalls(
                *self._parts.parser(tools), f"call-{batch.request_id}-{index}"
            )
            for index in range(batch.sampling.n)
        ]

    # --- the prompt -----------------------------------------------------------------

    async def count_tokens(self, batch: ExecuteBatch) -> int:
        """Return the tokens of a request's prompt.

        Raises:
            InferenceError: it is no prompt of this model's.
        """
        return len(await self._tokens(batch))

    async def _tokens(self, batch: ExecuteBatch) -> list[int]:
        tokens = await trio.to_thread.run_sync(self._prompt, batch)
        if not tokens:
            raise InvalidRequestError("the prompt is empty", param="messages")
        return tokens

    def _prompt(self, batch: ExecuteBatch) -> list[int]:
        if batch.prompt is not None:
            return list(self._parts.tokenizer.encode(batch.prompt))
        if self._parts.chat_template is None:
            raise UnsupportedFeatureError(
                "this model has no chat template; ask it for a completion",
                code="unsupported_parameter",
                param="messages",
            )
        tools = tools_of(batch)
        refuse_undecided(batch, None if self._parts.parser is None else "one")
        turns = turns_of(batch.messages)
        try:
            text = self._parts.tokenizer.apply_chat_template(
                turns,
                tools=tools or None,
                chat_template=self._parts.chat_template,
                add_generation_prompt=True,
                tokenize=False,
            )
        except Exception as error:
            # A template is a stranger's code, and computes with what the client wrote.
            raise InvalidRequestError(
                f"the model's chat template refuses the conversation: "
                f"{first_line(error)}",
                param="messages",
            ) from error
        # The template writes the special tokens itself.
        return list(self._parts.tokenizer.encode(text, add_special_tokens=False))
