"""`HybridGraph`: what is easy is answered at once, and what is hard is planned first.

::

    request ── router ─┬─ answer ──────────────── executor ── (fallbacks)
                       └─ plan ─── planner ────── executor ── (fallbacks)
                                   (fallbacks)

The router and the executor are models on this machine, as a rule, and the planner and
the fallbacks providers'.  A plan is held until it is whole: one that is refused for
want of room, whose circuit is open, that breaks in the middle or is longer than it may
be is asked of the next one.  What is withheld for its content is so for everybody, and
nobody else is asked.

Each of them is a request of its own, a stage in the outer one's trace, with its
runtime, duration and cost.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ContentFilterError, InferenceError, UpstreamError
from atomr_infer.model.batch import FinishReason, Message, Role
from atomr_infer.pipeline.asking.in_turn import first_that_answers
from atomr_infer.pipeline.asking.questions import filled, question
from atomr_infer.pipeline.asking.runner import GeneratingRunner, goes_on_after
from atomr_infer.pipeline.asking.words import asked_of, text_of
from atomr_infer.pipeline.graphs.options import PLAN

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from atomr_infer.model.batch import ExecuteBatch, TokenChunk
    from atomr_infer.pipeline.graphs.options import HybridOptions
    from atomr_infer.runtimes.others import Asking, Others

log = logging.getLogger(__name__)


class HybridGraph(GeneratingRunner):
    """Asks a router, a planner where that says so, and an executor."""

    def __init__(self, options: HybridOptions, others: Others) -> None:
        super().__init__(others)
        self._options = options

    async def _chunks(
        self, batch: ExecuteBatch, asking: Asking
    ) -> AsyncGenerator[TokenChunk, None]:
        if await self._needs_plan(batch, asking):
            batch = self._with(await self._plan(batch, asking), batch)
        async with aclosing(
            first_that_answers(batch, asking, self._options.executors())
        ) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _needs_plan(self, batch: ExecuteBatch, asking: Asking) -> bool:
        router = self._options.router
        prompt = filled(router.prompt, question=asked_of(batch))
        asked = question(
            batch,
            router.model,
            prompt,
            max_tokens=router.max_tokens,
            timeout_s=router.timeout_s,
        )
        stream = asking.generate(asked)
        try:
            said = text_of([chunk async for chunk in stream]).strip()
        except InferenceError as error:
            stream.judge("router failed")
            log.warning("the router %s failed (%s): no plan", router.model, error)
            return False
        finally:
            await stream.close()
        needs = said.casefold().startswith(PLAN)
        stream.judge("router: plan" if needs else "router: answer")
        return needs

    async def _plan(self, batch: ExecuteBatch, asking: Asking) -> str:
        """Return a plan, of the first who makes one.

        Raises:
            ContentFilterError: it was withheld.
            InferenceError: nobody makes one; that of the last.
        """
        options = self._options
        prompt = filled(options.plan_prompt, question=asked_of(batch))
        failure: InferenceError | None = None
        for model in options.planners():
            asked = question(
                batch,
                model,
                prompt,
                max_tokens=options.max_plan_tokens,
                timeout_s=options.plan_timeout_s,
            )
            stream = asking.generate(asked)
            try:
                chunks = [chunk async for chunk in stream]
                plan = _plan_of(model, chunks)
            except InferenceError as error:
                if not goes_on_after(error):
                    raise
                stream.judge(f"no plan: {error.kind}")
                failure = error
            else:
                stream.judge("planned")
                return plan
            finally:
                await stream.close()
        assert failure is not None, "there is a planner"
        failure.final = True
        raise failure

    def _with(self, plan: str, batch: ExecuteBatch) -> ExecuteBatch:
        told = filled(self._options.execute_prompt, plan=plan)
        if batch.prompt is not None:
            # Bare text has no place for a system's words but before it.
            text = f"{told}\n\n{batch.prompt}"
            asked = (Message(Role.USER, text),)
            return attrs.evolve(batch, prompt=text, messages=asked)
        before = [m for m in batch.messages if m.role is Role.SYSTEM]
        after = [m for m in batch.messages if m.role is not Role.SYSTEM]
        messages = (*before, Message(Role.SYSTEM, told), *after)
        return attrs.evolve(batch, messages=messages)


def _plan_of(model: str, chunks: Sequence[TokenChunk]) -> str:
    """Return the text of a plan.

    Raises:
        ContentFilterError: it was withheld.
        UpstreamError: there is none, or only its beginning.
    """
    if any(chunk.finish_reason is FinishReason.CONTENT_FILTER for chunk in chunks):
        raise ContentFilterError(f"{model} withholds its plan for the content")
    if any(chunk.finish_reason is FinishReason.LENGTH for chunk in chunks):
        # An executor would take the steps that are there for all that there are.
        told = "did not end its plan within max_plan_tokens"
        raise UpstreamError(f"{model} {told}", code="plan_cut")
    text = text_of(chunks).strip()
    if not text:
        raise UpstreamError(f"{model} gave an empty plan", code="empty_plan")
    return text
