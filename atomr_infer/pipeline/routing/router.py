"""`MoeRouter`: the specialist that a request is for, and others where that fails.

Its rules look at the request; its gate, a model or a function, is asked where none of
them holds.  A gate that fails chooses nobody: the default is asked.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from atomr_infer.errors import InferenceError
from atomr_infer.pipeline.asking.functions import (
    THREADS,
    call_function,
    find_function,
    raised,
)
from atomr_infer.pipeline.asking.in_turn import first_that_answers
from atomr_infer.pipeline.asking.questions import question
from atomr_infer.pipeline.asking.runner import GeneratingRunner
from atomr_infer.pipeline.asking.words import asked_of, text_of
from atomr_infer.pipeline.routing.gating import Gate, scores_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.pipeline.routing.gating import RouterOptions
    from atomr_infer.runtimes.others import Asking, Others

log = logging.getLogger(__name__)


class MoeRouter(GeneratingRunner):
    """Asks whom a request is for."""

    def __init__(self, options: RouterOptions, others: Others) -> None:
        """Find the gate's function.

        Raises:
            ConfigError: there is none of that name.
        """
        super().__init__(others)
        self._options = options
        self._function: Callable[..., object] | None = None
        self._threads = trio.CapacityLimiter(THREADS)
        if isinstance(options.gate, str):
            self._function = find_function(options.gate, what="gate")

    async def _chunks(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncGenerator[TokenChunk, None]:
        chosen = self._options.by_rules(batch) or await self._gated(batch, asking)
        models = tuple(dict.fromkeys((*chosen, self._options.default)))
        async with aclosing(first_that_answers(batch, asking, models)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _gated(self, batch: ExecuteBatch, asking: Asking) -> tuple[str, ...]:
        """Return the models that the gate chooses, the best one first."""
        gate = self._options.gate
        if gate is None:
            return ()
        if isinstance(gate, Gate):
            scores = await self._model_says(gate, batch, asking)
        else:
            scores = await self._function_says(batch)
        return self._options.by_scores(scores)

    async def _function_says(self, batch: ExecuteBatch) -> Mapping[str, float]:
        function = self._function
        assert function is not None, "found at the start"
        try:
            said = await call_function(function, batch, limiter=self._threads)
            return scores_of(said, self._options.labels)
        except Exception as error:  # of a function of the operator's
            name = self._options.gate
            # Its words may repeat the user's; with the lines of its code, they are for
            # who debugs.
            log.warning(
                "the gate %s failed (%s); nobody is chosen", name, raised(error)
            )
            log.debug("the gate %s failed", name, exc_info=True)
            return {}

    async def _model_says(
        self, gate: Gate, batch: ExecuteBatch, asking: Asking
    ) -> Mapping[str, float]:
        labels = self._options.labels
        prompt = gate.prompt_for(asked_of(batch), labels)
        asked = question(
            batch,
            gate.model,
            prompt,
            max_tokens=gate.max_tokens,
            timeout_s=gate.timeout_s,
        )
        stream = asking.generate(asked)
        try:
            said = text_of([chunk async for chunk in stream]).strip()
        except InferenceError as error:
            stream.judge("gate failed")
            log.warning("the gate %s failed (%s); nobody is chosen", gate.model, error)
            return {}
        finally:
            await stream.close()
        scores = scores_of(said, labels)
        # Never its own words: they may repeat the user's, and this is logged.
        stream.judge(f"gate: {next(iter(scores), 'no label')}")
        return scores
