"""The runner of a model that reads texts and writes none."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from atomr_infer.errors import EndpointUnsupportedError, InferenceError
from atomr_infer.model.capabilities import Capabilities
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer.runtimes.text_runner import DOES, refuse_other
from atomr_infer_vllm.faults import to_inference_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.figures import Figure
    from atomr_infer_vllm.pooling import Pooling
    from atomr_infer_vllm.runner import Watched

_NO_ADAPTERS: Mapping[str, object] = {}


class VllmEmbedder:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` that only embeds.

    Args:
        life: the engine's.
        pooling: what its model does with texts.
        context_tokens: bounds one text.
        max_seqs: texts that are read together.
        adapters: a ``LoRARequest`` by the model name that a client asks for.
    """

    def __init__(
        self,
        life: Watched,
        pooling: Pooling,
        *,
        context_tokens: int,
        max_seqs: int,
        adapters: Mapping[str, object] = _NO_ADAPTERS,
    ) -> None:
        self._life = life
        self._pooling = pooling
        self._adapters = adapters
        # A tokenizer is not for several threads while it is set up for its first text.
        self._turn = trio.CapacityLimiter(1)
        self.capabilities = Capabilities(
            features=frozenset({pooling.feature}),
            sampling=frozenset(),
            max_concurrency=max_seqs,
            context_tokens=context_tokens,
        )

    @property
    def active(self) -> int:
        """Requests in the engine."""
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
    async def execute(
        self, batch: ExecuteBatch
    ) -> AsyncIterator[AsyncIterator[TokenChunk]]:
        """Refuse: it makes vectors only.

        Raises:
            EndpointUnsupportedError: always.
        """
        raise EndpointUnsupportedError(
            f"{batch.model!r} {DOES[self._pooling.feature]}; it does not write text",
            code="unsupported",
            param="model",
        )
        yield  # type: ignore[unreachable] # makes it a generator

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each input, in order, or what is told of it.

        Raises:
            EndpointUnsupportedError: the model does something else with texts.
            InvalidRequestError: an input is too long, or the length not to be had.
            EngineError: the engine failed.
            EngineCrashedError: its core has died.

        Cancellation: the engine drops the request.
        """
        refuse_other(self._pooling.feature, request)
        with self._life.counted():
            try:
                asked = await trio.to_thread.run_sync(
                    self._pooling.asked, request, limiter=self._turn
                )
                outputs = await self._life.loop.run(
                    lambda: self._encode_all(request, asked)
                )
            except Exception as error:
                raise to_inference_error(error) from error
        read = sum(len(output.prompt_token_ids) for output in outputs)
        return Embeddings(
            vectors=tuple(self._pooling.told(o.outputs.data.tolist()) for o in outputs),
            usage=Usage(input_uncached=read),
            labels=self._pooling.labels,
        )

    async def _encode_all(
        self, request: EmbedRequest, asked: list[tuple[object, object]]
    ) -> list[Any]:
        # In the loop, so asyncio's; it is imported where vLLM is.
        import asyncio  # noqa: PLC0415

        adapter = self._adapters.get(request.model)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._encode(
                            prompt, params, f"{request.request_id}-{number}", adapter
                        )
                    )
                    for number, (prompt, params) in enumerate(asked)
                ]
        except ExceptionGroup as errors:
            # The first one cancelled the others.
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        return [task.result() for task in tasks]

    async def _encode(
        self, prompt: object, params: object, request_id: str, adapter: object
    ) -> Any:  # noqa: ANN401  vLLM's PoolingRequestOutput
        last = None
        async for output in self._life.engine.encode(
            prompt, params, request_id, lora_request=adapter
        ):
            last = output
        return last
