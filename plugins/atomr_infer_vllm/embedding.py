"""The runner of a model that makes vectors."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from atomr_infer.errors import EndpointUnsupportedError, InferenceError
from atomr_infer.model.capabilities import Capabilities, Feature
from atomr_infer.model.embeddings import Embeddings, EmbedRequest
from atomr_infer.model.usage import Usage
from atomr_infer_vllm.faults import to_inference_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.model.figures import Figure
    from atomr_infer_vllm.runner import Watched


class VllmEmbedder:
    """A :class:`~atomr_infer.runtimes.contract.ModelRunner` that only embeds.

    Args:
        life: the engine's.
        pooling_params: makes vLLM's ``PoolingParams`` for a vector's length.
        context_tokens: bounds one text.
        max_seqs: texts that are read together.
    """

    def __init__(
        self,
        life: Watched,
        pooling_params: Callable[[int | None], object],
        *,
        context_tokens: int,
        max_seqs: int,
    ) -> None:
        self._life = life
        self._pooling_params = pooling_params
        self.capabilities = Capabilities(
            features=frozenset({Feature.EMBEDDINGS}),
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
        raise EndpointUnsupportedError(f"{batch.model!r} makes vectors, and no answers")
        yield  # type: ignore[unreachable] # makes it a generator

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each input, in order.

        Raises:
            InvalidRequestError: an input is too long, or the length not to be had.
            EngineError: the engine failed.
            EngineCrashedError: its core has died.

        Cancellation: the engine drops the request.
        """
        with self._life.counted():
            try:
                outputs = await self._life.loop.run(lambda: self._encode_all(request))
            except Exception as error:
                raise to_inference_error(error) from error
        read = sum(len(output.prompt_token_ids) for output in outputs)
        return Embeddings(
            vectors=tuple(tuple(o.outputs.data.tolist()) for o in outputs),
            usage=Usage(input_uncached=read),
        )

    async def _encode_all(self, request: EmbedRequest) -> list[Any]:
        # In the loop, so asyncio's; it is imported where vLLM is.
        import asyncio  # noqa: PLC0415

        params = self._pooling_params(request.dimensions)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        self._encode(one, params, f"{request.request_id}-{number}")
                    )
                    for number, one in enumerate(request.inputs)
                ]
        except ExceptionGroup as errors:
            # The first one cancelled the others.
            raise errors.exceptions[0] from errors.exceptions[0].__cause__
        return [task.result() for task in tasks]

    async def _encode(
        self, one: str | tuple[int, ...], params: object, request_id: str
    ) -> Any:  # noqa: ANN401  vLLM's PoolingRequestOutput
        prompt = (
            {"prompt": one} if isinstance(one, str) else {"prompt_token_ids": list(one)}
        )
        last = None
        async for output in self._life.engine.encode(prompt, params, request_id):
            last = output
        return last
